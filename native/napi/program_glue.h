// Programs that this process runs. src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value start_program(const Napi::CallbackInfo& info);
Napi::Value reap_program(const Napi::CallbackInfo& info);

}  // namespace microvm
