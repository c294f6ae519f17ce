// The output of programs.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value new_pipe(const Napi::CallbackInfo& info);
Napi::Value close_write_end(const Napi::CallbackInfo& info);
Napi::Value receive_chunks(const Napi::CallbackInfo& info);

}  // namespace microvm
