// Replacing the image of a slot: src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value lock_slot(const Napi::CallbackInfo& info);
Napi::Value finish_grow(const Napi::CallbackInfo& info);
Napi::Value open_slot_image(const Napi::CallbackInfo& info);
Napi::Value replace_image(const Napi::CallbackInfo& info);

}  // namespace microvm
