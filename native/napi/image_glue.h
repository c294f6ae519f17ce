// Images and their digests. src/addon/native.ts describes each function.
#pragma once

#include <napi.h>

namespace microvm {

Napi::Value open_source(const Napi::CallbackInfo& info);
Napi::Value check_source(const Napi::CallbackInfo& info);
Napi::Value identities(const Napi::CallbackInfo& info);
Napi::Value files_linked_since(const Napi::CallbackInfo& info);
Napi::Value read_links(const Napi::CallbackInfo& info);
Napi::Value flush_source(const Napi::CallbackInfo& info);
Napi::Value sha256_of_text(const Napi::CallbackInfo& info);
Napi::Value new_digest(const Napi::CallbackInfo& info);
Napi::Value digest_step(const Napi::CallbackInfo& info);
Napi::Value extent_count(const Napi::CallbackInfo& info);
Napi::Value image_open_elsewhere(const Napi::CallbackInfo& info);
Napi::Value fills_image(const Napi::CallbackInfo& info);

}  // namespace microvm
