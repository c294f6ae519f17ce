// Files of a tree that an image is made of. src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value remove_default_acl(const Napi::CallbackInfo& info);
Napi::Value list_folder(const Napi::CallbackInfo& info);
Napi::Value file_facts(const Napi::CallbackInfo& info);
Napi::Value read_small_files(const Napi::CallbackInfo& info);
Napi::Value file_data_ranges(const Napi::CallbackInfo& info);

}  // namespace microvm
