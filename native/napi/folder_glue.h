// Managed folders. src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value open_folder(const Napi::CallbackInfo& info);
Napi::Value probe_reflink(const Napi::CallbackInfo& info);
Napi::Value close_folder(const Napi::CallbackInfo& info);
Napi::Value sweep(const Napi::CallbackInfo& info);
Napi::Value discard_folder(const Napi::CallbackInfo& info);

}  // namespace microvm
