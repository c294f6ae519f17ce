#include "napi/slot_js.h"

#include <string>

#include "napi/js.h"

namespace microvm {

Napi::Value to_js(Napi::Env env, const SmallFile& file) {
  switch (file.state) {
    case SmallFile::State::kAbsent:
      return env.Undefined();
    case SmallFile::State::kUnusable:
      return env.Null();
    case SmallFile::State::kPresent:
      break;
  }
  Napi::String text = Napi::String::New(env, file.contents);
  return text.Utf8Value() == file.contents ? text : env.Null();
}

Napi::Value to_js(Napi::Env env, const SlotState& state) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", state.kind == SlotState::Kind::kAbsent   ? "absent"
                     : state.kind == SlotState::Kind::kFolder ? "folder"
                                                              : "not-a-folder");
  if (state.has_image) object.Set("image", microvm::to_js(env, state.image));
  if (state.kind == SlotState::Kind::kFolder) object.Set("folder", microvm::to_js(env, state.folder));
  object.Set("hasSidecars", state.has_sidecars);
  object.Set("sharesExtents", state.shares_extents);
  object.Set("stamp", to_js(env, state.stamp));
  object.Set("createdAtMs", static_cast<double>(state.created_ms()));
  object.Set("sizeStamp", to_js(env, state.size_stamp));
  object.Set("newSizeStamp", to_js(env, state.new_size_stamp));
  object.Set("rawId", to_js(env, state.raw_id));
  object.Set("stack", to_js(env, state.stack));
  object.Set("unsettled", to_js(env, state.unsettled));
  object.Set("exportedNames", static_cast<double>(state.exported_names));
  object.Set("linked", state.linked);
  return object;
}

OwnerAndMode to_owner_and_mode(Napi::Object object) {
  OwnerAndMode owner_and_mode;
  if (object.IsEmpty()) return owner_and_mode;
  Napi::Value owner = object.Get("owner");
  if (owner.IsObject()) {
    owner_and_mode.has_owner = true;
    owner_and_mode.uid = static_cast<uint32_t>(to_size(owner.As<Napi::Object>().Get("uid")));
    owner_and_mode.gid = static_cast<uint32_t>(to_size(owner.As<Napi::Object>().Get("gid")));
  }
  Napi::Value mode = object.Get("mode");
  if (mode.IsNumber()) {
    owner_and_mode.has_mode = true;
    owner_and_mode.mode = static_cast<uint32_t>(to_size(mode));
  }
  return owner_and_mode;
}

std::vector<Sidecar> to_sidecars(Napi::Value value) {
  std::vector<Sidecar> sidecars;
  if (!value.IsArray()) return sidecars;
  Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i + 1 < array.Length(); i += 2) {
    sidecars.push_back({to_string(array.Get(i)), to_string(array.Get(i + 1))});
  }
  return sidecars;
}

namespace {

// [{ path, identity }, …], or undefined
std::vector<ExpectedFile> to_expected_files(Napi::Value value) {
  std::vector<ExpectedFile> files;
  if (!value.IsArray()) return files;
  Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) {
    Napi::Object file = array.Get(i).As<Napi::Object>();
    if (file.IsEmpty()) break;  // a worker that is being terminated
    files.push_back({to_string(file.Get("path")), to_identity(file.Get("identity").As<Napi::Object>())});
  }
  return files;
}

}  // namespace

SlotPlan to_plan(Napi::Object object) {
  SlotPlan plan;
  if (object.IsEmpty()) return plan;
  plan.sidecars = to_sidecars(object.Get("sidecars"));
  plan.expected = to_identity(object.Get("expected").As<Napi::Object>());
  Napi::Value path = object.Get("templatePath");
  if (path.IsString()) {
    plan.template_path = to_string(path);
    plan.template_expected = to_identity(object.Get("templateExpected").As<Napi::Object>());
  }
  plan.siblings = to_expected_files(object.Get("siblings"));
  plan.rungs = static_cast<unsigned>(to_size(object.Get("rungs")));
  plan.packed = to_bool(object.Get("packed"));
  plan.unhashed = to_bool(object.Get("unhashed"));
  plan.durable = to_bool(object.Get("durable"));
  plan.owner_and_mode = to_owner_and_mode(object);
  return plan;
}

Place to_place(Napi::Value value) {
  const std::string name = to_string(value);
  return name == "sealed" ? Place::kSealed : name == "pool" ? Place::kPool : Place::kTop;
}

}  // namespace microvm
