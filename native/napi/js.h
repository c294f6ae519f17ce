// Values on their way between JavaScript and the core. src/addon/native.ts has checked every argument before it comes
// here.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"
#include "system/ref.h"

namespace microvm {

// { errno, syscall, path, dest, changeMade }, of which src/system/errors.ts makes an error that a user sees.
Napi::Value to_js(Napi::Env env, const Error& error);
Napi::Value to_js(Napi::Env env, const Identity& identity);
Napi::Value to_js(Napi::Env env, const FileInfo& info);

Identity to_identity(Napi::Object object);
std::string to_string(Napi::Value value);
std::vector<std::string> to_strings(Napi::Value array);
uint64_t to_size(Napi::Value value);
bool to_bool(Napi::Value value);
// A descriptor of our own: the caller's may be closed, and its number used again, before a job runs. False, and an
// exception pending, if there can be none.
bool own_fd(Napi::Env env, Napi::Value fd, const std::string& path, Fd* own);

// An object of the core as an opaque JavaScript value. The tag keeps one kind from being taken for another. JavaScript
// lets go of it by dispose(), or at the latest when the value is collected; jobs that still run hold references of
// their own.
Napi::Value wrap_object(Napi::Env env, Ref<Shared> object, const napi_type_tag& tag);
// nullptr, and an exception pending, if the value is not of this kind or was disposed of.
Shared* unwrap_object(Napi::Value value, const napi_type_tag& tag);
Napi::Value dispose(const Napi::CallbackInfo& info);

template <class T>
struct Kind;  // { static constexpr napi_type_tag tag; } for each T that JavaScript holds

template <class T>
Napi::Value wrap(Napi::Env env, const Ref<T>& object) {
  return wrap_object(env, Ref<Shared>(object.get()), Kind<T>::tag);
}

template <class T>
Ref<T> unwrap(Napi::Value value) {
  return Ref<T>(static_cast<T*>(unwrap_object(value, Kind<T>::tag)));
}

}  // namespace microvm
