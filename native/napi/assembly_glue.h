// An image that is put together from chunks. src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value new_pipe(const Napi::CallbackInfo& info);
Napi::Value close_write_end(const Napi::CallbackInfo& info);
Napi::Value receive_chunks(const Napi::CallbackInfo& info);
Napi::Value reserve_ranges(const Napi::CallbackInfo& info);
Napi::Value give_back_ranges(const Napi::CallbackInfo& info);

}  // namespace microvm
