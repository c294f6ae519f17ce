#include "napi/js.h"

#include <utility>

#include "system/file.h"

namespace microvm {

Napi::Value to_js(Napi::Env env, const Error& error) {
  // Napi::Error would look at the object's properties. In a worker that is being terminated that fails, and ends the
  // process.
  napi_value message = nullptr;
  napi_value made = nullptr;
  if (napi_create_string_utf8(env, error.syscall, NAPI_AUTO_LENGTH, &message) != napi_ok ||
      napi_create_error(env, nullptr, message, &made) != napi_ok) {
    return env.Undefined();
  }
  Napi::Object object(env, made);
  object.Set("errno", -error.code);
  object.Set("syscall", error.syscall);
  object.Set("path", error.path);
  if (!error.dest.empty()) object.Set("dest", error.dest);
  if (error.change_made) object.Set("changeMade", true);
  return object;
}

namespace {

// Times of today fit into 64 bits; others take two words.
Napi::Value to_js_time(Napi::Env env, TimeNs time) {
  const int64_t narrow = static_cast<int64_t>(time);
  if (narrow == time) return Napi::BigInt::New(env, narrow);
  const bool negative = time < 0;
  const TimeNs magnitude = negative ? -time : time;
  const uint64_t words[2] = {static_cast<uint64_t>(magnitude), static_cast<uint64_t>(magnitude >> 64)};
  return Napi::BigInt::New(env, negative ? 1 : 0, 2, words);
}

}  // namespace

Napi::Value to_js(Napi::Env env, const Identity& identity) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("device", Napi::BigInt::New(env, identity.device));
  object.Set("inode", Napi::BigInt::New(env, identity.inode));
  object.Set("sizeBytes", static_cast<double>(identity.size));
  object.Set("mtimeNs", to_js_time(env, identity.mtime_ns));
  object.Set("ctimeNs", to_js_time(env, identity.ctime_ns));
  object.Set("links", static_cast<double>(identity.links));
  object.Set("mount", Napi::BigInt::New(env, identity.mount));
  if (identity.real_ctime_ns != identity.ctime_ns) object.Set("linkedCtimeNs", to_js_time(env, identity.real_ctime_ns));
  return object;
}

Napi::Value to_js(Napi::Env env, const FileInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("identity", to_js(env, info.identity));
  object.Set("regular", info.is_regular());
  object.Set("mode", info.mode & 07777);
  object.Set("uid", info.uid);
  object.Set("gid", info.gid);
  object.Set("blocks", static_cast<double>(info.blocks));
  return object;
}

namespace {

// In a worker that is being terminated a property can be an empty value, and using that would end the process.
int64_t to_integer(Napi::Value value) {
  bool lossless = false;
  // The 64 bits of a signed or an unsigned number.
  return value.IsBigInt() ? static_cast<int64_t>(value.As<Napi::BigInt>().Uint64Value(&lossless)) : 0;
}

TimeNs to_time(Napi::Value value) {
  if (!value.IsBigInt()) return 0;
  int negative = 0;
  size_t count = 2;
  uint64_t words[2] = {0, 0};
  value.As<Napi::BigInt>().ToWords(&negative, &count, words);
  const TimeNs magnitude = (static_cast<TimeNs>(words[1] & INT64_MAX) << 64) | words[0];
  return negative != 0 ? -magnitude : magnitude;
}

}  // namespace

Identity to_identity(Napi::Object object) {
  Identity identity;
  if (object.IsEmpty()) return identity;
  identity.device = static_cast<uint64_t>(to_integer(object.Get("device")));
  identity.inode = static_cast<uint64_t>(to_integer(object.Get("inode")));
  identity.size = to_size(object.Get("sizeBytes"));
  identity.mtime_ns = to_time(object.Get("mtimeNs"));
  identity.ctime_ns = to_time(object.Get("ctimeNs"));
  identity.links = to_size(object.Get("links"));
  identity.mount = static_cast<uint64_t>(to_integer(object.Get("mount")));
  return identity;
}

std::string to_string(Napi::Value value) { return value.IsString() ? value.As<Napi::String>().Utf8Value() : ""; }

std::vector<std::string> to_strings(Napi::Value value) {
  std::vector<std::string> strings;
  if (value.IsEmpty()) return strings;
  Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) strings.push_back(to_string(array.Get(i)));
  return strings;
}

uint64_t to_size(Napi::Value value) {
  return value.IsNumber() ? static_cast<uint64_t>(value.As<Napi::Number>().Int64Value()) : 0;
}

bool to_bool(Napi::Value value) { return value.IsBoolean() && value.As<Napi::Boolean>().Value(); }

bool own_fd(Napi::Env env, Napi::Value fd, const std::string& path, Fd* own) {
  Error error = duplicate(fd.As<Napi::Number>().Int32Value(), path, own);
  if (error.ok()) return true;
  napi_throw(env, to_js(env, error));
  return false;
}

Napi::Value wrap_object(Napi::Env env, Ref<Shared> object, const napi_type_tag& tag) {
  auto* box = new Ref<Shared>(std::move(object));
  auto external =
      Napi::External<Ref<Shared>>::New(env, box, [](Napi::BasicEnv, Ref<Shared>* finalized) { delete finalized; });
  if (external.IsEmpty()) {  // a worker that is being terminated
    delete box;
    return env.Undefined();
  }
  external.TypeTag(&tag);
  return external;
}

Shared* unwrap_object(Napi::Value value, const napi_type_tag& tag) {
  if (value.IsEmpty()) return nullptr;
  if (value.IsExternal()) {
    auto external = value.As<Napi::External<Ref<Shared>>>();
    if (external.CheckTypeTag(&tag) && *external.Data()) return external.Data()->get();
  }
  Napi::TypeError::New(value.Env(), "not an open handle of the expected kind").ThrowAsJavaScriptException();
  return nullptr;
}

Napi::Value dispose(const Napi::CallbackInfo& info) {
  if (info[0].IsExternal()) *info[0].As<Napi::External<Ref<Shared>>>().Data() = Ref<Shared>();
  return info.Env().Undefined();
}

}  // namespace microvm
