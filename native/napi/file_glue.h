// Single files: copied, measured, read. src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value new_file_copy(const Napi::CallbackInfo& info);
Napi::Value file_copy_step(const Napi::CallbackInfo& info);
Napi::Value publish_file_copy(const Napi::CallbackInfo& info);
Napi::Value new_disk_usage(const Napi::CallbackInfo& info);
Napi::Value measure_files(const Napi::CallbackInfo& info);
Napi::Value disk_usage_total(const Napi::CallbackInfo& info);
Napi::Value read_small_file(const Napi::CallbackInfo& info);

}  // namespace microvm
