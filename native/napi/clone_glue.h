// Building slots and making them appear: src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value new_plan(const Napi::CallbackInfo& info);
Napi::Value clone_slot(const Napi::CallbackInfo& info);
Napi::Value clone_slot_sync(const Napi::CallbackInfo& info);
Napi::Value clone_slots(const Napi::CallbackInfo& info);
Napi::Value stage_slot(const Napi::CallbackInfo& info);
Napi::Value stage_image(const Napi::CallbackInfo& info);
Napi::Value clone_file(const Napi::CallbackInfo& info);
Napi::Value fork_slot(const Napi::CallbackInfo& info);
Napi::Value copy_step(const Napi::CallbackInfo& info);
Napi::Value publish_slot(const Napi::CallbackInfo& info);
Napi::Value discard_slot(const Napi::CallbackInfo& info);

}  // namespace microvm
