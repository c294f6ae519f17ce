// Slots in a managed folder, as they are. src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value inspect_slots(const Napi::CallbackInfo& info);
Napi::Value survey_slots(const Napi::CallbackInfo& info);
Napi::Value release_slot(const Napi::CallbackInfo& info);
Napi::Value set_slot_owner_and_mode(const Napi::CallbackInfo& info);
Napi::Value identify_images(const Napi::CallbackInfo& info);
Napi::Value flush_slot(const Napi::CallbackInfo& info);
Napi::Value flush_copied_slots(const Napi::CallbackInfo& info);

}  // namespace microvm
