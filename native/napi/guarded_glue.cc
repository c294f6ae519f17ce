#include "napi/guarded_glue.h"

#include <sys/stat.h>

#include <string>
#include <utility>

#include "napi/job.h"
#include "napi/kinds.h"
#include "napi/slot_js.h"
#include "slot/export_image.h"
#include "system/guarded_folder.h"

namespace microvm {
namespace {

class OpenGuardedFolder {
 public:
  OpenGuardedFolder(std::string path, bool own) : path_(std::move(path)), own_(own) {}

  Error run() { return own_ ? GuardedFolder::open_own(path_, &folder_) : GuardedFolder::open(path_, &folder_); }

  Napi::Value result(Napi::Env env) { return wrap(env, folder_); }

 private:
  std::string path_;
  bool own_;
  Ref<GuardedFolder> folder_;
};

class OpenGuardedFile {
 public:
  explicit OpenGuardedFile(std::string path) : path_(std::move(path)) {}

  Error run() {
    std::string folder_path;
    std::string name;
    split_path(path_, &folder_path, &name);
    Ref<GuardedFolder> folder;
    Error error = GuardedFolder::open(folder_path, &folder);
    if (!error.ok()) return error;
    guarded_ = folder->is_guarded();
    // Looked at before it is opened: opening a device can have effects.
    error = stat_at(folder->fd(), name.c_str(), Follow::kNo, path_, &info_);
    if (!error.ok()) return error;
    if (S_ISLNK(info_.mode)) return Error::of(ELOOP, "open", path_);
    if (!info_.is_regular()) return Error::of(EINVAL, "open", path_);
    return Source::open_at(folder->fd(), name.c_str(), path_, &source_, &info_);
  }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("source", wrap(env, source_));
    object.Set("info", microvm::to_js(env, info_));
    object.Set("guarded", guarded_);
    return object;
  }

 private:
  std::string path_;
  Ref<Source> source_;
  FileInfo info_;
  bool guarded_ = false;
};

const char* name_of(ExportStatus status) {
  switch (status) {
    case ExportStatus::kLinked:
      return "linked";
    case ExportStatus::kRefused:
      return "refused";
    case ExportStatus::kKept:
      return "kept";
    case ExportStatus::kMoved:
      return "moved";
  }
  return "";
}

class ExportImage {
 public:
  ExportImage(Ref<ManagedFolder> managed, ExportRequest request)
      : managed_(std::move(managed)), request_(std::move(request)) {}

  Error run() { return export_image(*managed_, request_, &outcome_); }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("status", name_of(outcome_.status));
    object.Set("errno", -outcome_.refused);
    return object;
  }

 private:
  Ref<ManagedFolder> managed_;
  ExportRequest request_;
  ExportOutcome outcome_;
};

}  // namespace

Napi::Value open_guarded_folder(const Napi::CallbackInfo& info) {
  return Job<OpenGuardedFolder>::start(info.Env(), "microvm:openGuardedFolder",
                                       OpenGuardedFolder(to_string(info[0]), to_bool(info[1])));
}

Napi::Value flush_names_in(const Napi::CallbackInfo& info) {
  Ref<GuardedFolder> folder = unwrap<GuardedFolder>(info[0]);
  if (!folder) return {};
  return start_silent(info.Env(), "microvm:flushNames", [folder] { return folder->flush_names().after_change(); });
}

Napi::Value open_guarded_file(const Napi::CallbackInfo& info) {
  return Job<OpenGuardedFile>::start(info.Env(), "microvm:openGuardedFile", OpenGuardedFile(to_string(info[0])));
}

Napi::Value export_image_of_slot(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  ExportRequest request;
  Napi::Object object = info[1].As<Napi::Object>();
  request.slot = to_string(object.Get("slot"));
  request.image = unwrap<Source>(object.Get("image"));
  if (!request.image) return {};
  request.folder = unwrap<GuardedFolder>(object.Get("folder"));
  if (!request.folder) return {};
  request.name = to_string(object.Get("name"));
  request.owner_and_mode = to_owner_and_mode(object);
  request.keeps_owner_and_mode = to_bool(object.Get("keepsOwnerAndMode"));
  request.durable = to_bool(object.Get("durable"));
  return Job<ExportImage>::start(info.Env(), "microvm:exportImage",
                                 ExportImage(std::move(managed), std::move(request)));
}

}  // namespace microvm
