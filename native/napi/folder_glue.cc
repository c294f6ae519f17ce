#include "napi/folder_glue.h"

#include <string>
#include <utility>

#include "napi/job.h"
#include "napi/kinds.h"
#include "napi/slot_js.h"
#include "slot/managed_folder.h"
#include "slot/take_out.h"

namespace microvm {
namespace {

// Undefined while it is not known.
Napi::Value to_js(Napi::Env env, Reflinks reflinks) {
  if (reflinks == Reflinks::kUnknown) return env.Undefined();
  return Napi::Boolean::New(env, reflinks == Reflinks::kYes);
}

class OpenFolder {
 public:
  explicit OpenFolder(std::string path) : path_(std::move(path)) {}
  Error run() {
    Error error = ManagedFolder::open(path_, &managed_);
    if (!error.ok()) return error;
    error = managed_->probe_reflink(&reflinks_);
    // If every open fails here, no sweep ever runs.
    if (!error.ok()) (void)managed_->leave().ok();
    return error;
  }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("handle", wrap(env, managed_));
    object.Set("sessionPath", managed_->session_path());
    object.Set("reflinks", to_js(env, reflinks_));
    return object;
  }

 private:
  std::string path_;
  Ref<ManagedFolder> managed_;
  Reflinks reflinks_ = Reflinks::kUnknown;
};

class ProbeReflink {
 public:
  explicit ProbeReflink(Ref<ManagedFolder> managed) : managed_(std::move(managed)) {}
  Error run() { return managed_->probe_reflink(&reflinks_); }
  Napi::Value result(Napi::Env env) { return to_js(env, reflinks_); }

 private:
  Ref<ManagedFolder> managed_;
  Reflinks reflinks_ = Reflinks::kUnknown;
};

class SweepFolder {
 public:
  SweepFolder(Ref<ManagedFolder> managed, uint64_t budget) : managed_(std::move(managed)), budget_(budget) {}
  Error run() {
    first_error_ = managed_->sweep(budget_, &report_);
    return {};
  }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("stagingRemoved", static_cast<double>(report_.staging_removed));
    object.Set("trashRemoved", static_cast<double>(report_.trash_removed));
    object.Set("more", report_.more);
    object.Set("stillOpen", report_.still_open);
    if (!first_error_.ok()) object.Set("error", to_js(env, first_error_));
    return object;
  }

 private:
  Ref<ManagedFolder> managed_;
  uint64_t budget_;
  SweepReport report_;
  Error first_error_;
};

}  // namespace

Napi::Value open_folder(const Napi::CallbackInfo& info) {
  return Job<OpenFolder>::start(info.Env(), "microvm:openFolder", OpenFolder(to_string(info[0])));
}

Napi::Value probe_reflink(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  return Job<ProbeReflink>::start(info.Env(), "microvm:probeReflink", ProbeReflink(std::move(managed)));
}

Napi::Value close_folder(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  return start_silent(info.Env(), "microvm:closeFolder", [managed] { return managed->leave(); });
}

Napi::Value sweep(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  return Job<SweepFolder>::start(info.Env(), "microvm:sweep", SweepFolder(std::move(managed), to_size(info[1])));
}

Napi::Value discard_folder(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  const Place place = to_place(info[1]);
  return start_silent(info.Env(), "microvm:discardFolder",
                      [managed, place, name = to_string(info[2])] { return discard_folder(*managed, place, name); });
}

}  // namespace microvm
