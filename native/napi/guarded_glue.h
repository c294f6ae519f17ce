// Folders that others may be able to write to, and what is opened in them or put there. src/addon/native.ts describes
// each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value open_guarded_folder(const Napi::CallbackInfo& info);
Napi::Value flush_names_in(const Napi::CallbackInfo& info);
Napi::Value open_guarded_file(const Napi::CallbackInfo& info);
Napi::Value export_image_of_slot(const Napi::CallbackInfo& info);

}  // namespace microvm
