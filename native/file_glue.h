// Single files: copies to any place, and what they hold on disk. src/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value new_file_copy(const Napi::CallbackInfo& info);
Napi::Value file_copy_step(const Napi::CallbackInfo& info);
Napi::Value publish_file_copy(const Napi::CallbackInfo& info);
Napi::Value new_tally(const Napi::CallbackInfo& info);
Napi::Value tally_files(const Napi::CallbackInfo& info);
Napi::Value tally_total(const Napi::CallbackInfo& info);

}  // namespace microvm
