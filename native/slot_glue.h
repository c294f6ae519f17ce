// What JavaScript can do with the clones folder and its slots: src/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value open_store(const Napi::CallbackInfo& info);
Napi::Value leave_store(const Napi::CallbackInfo& info);
Napi::Value sweep_store(const Napi::CallbackInfo& info);
Napi::Value inspect_slot(const Napi::CallbackInfo& info);
Napi::Value clone_slot(const Napi::CallbackInfo& info);
Napi::Value clone_slot_sync(const Napi::CallbackInfo& info);
Napi::Value clone_slots(const Napi::CallbackInfo& info);
Napi::Value stage_slot(const Napi::CallbackInfo& info);
Napi::Value stage_replacement(const Napi::CallbackInfo& info);
Napi::Value copy_step(const Napi::CallbackInfo& info);
Napi::Value publish_slot(const Napi::CallbackInfo& info);
Napi::Value discard_slot(const Napi::CallbackInfo& info);
Napi::Value lock_slot(const Napi::CallbackInfo& info);
Napi::Value settle_slot(const Napi::CallbackInfo& info);
Napi::Value open_slot_image(const Napi::CallbackInfo& info);
Napi::Value replace_image(const Napi::CallbackInfo& info);
Napi::Value dress_slot(const Napi::CallbackInfo& info);
Napi::Value discard_folder(const Napi::CallbackInfo& info);
Napi::Value release_slot(const Napi::CallbackInfo& info);

}  // namespace microvm
