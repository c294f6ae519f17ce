#include "napi/replace_glue.h"

#include <string>
#include <utility>

#include "napi/job.h"
#include "napi/kinds.h"
#include "slot/locked_slot.h"
#include "system/lease.h"

namespace microvm {
namespace {

const char* name_of(LockedSlot::Replaced replaced) {
  switch (replaced) {
    case LockedSlot::Replaced::kDone:
      return "done";
    case LockedSlot::Replaced::kInUse:
      return "in-use";
    case LockedSlot::Replaced::kImageChanged:
      return "image-changed";
    case LockedSlot::Replaced::kReleased:
      return "released";
  }
  return "";
}

class LockSlot {
 public:
  LockSlot(Ref<ManagedFolder> managed, std::string slot, bool heed_older)
      : managed_(std::move(managed)), slot_(std::move(slot)), heed_older_(heed_older) {}
  // A slot that is locked by another process, or gone, is a result and not a failure.
  Error run() {
    Error error = LockedSlot::open(managed_, slot_, heed_older_, &locked_);
    if (error.is(EWOULDBLOCK)) return {};
    if (error.is(ENOENT)) {
      absent_ = true;
      return {};
    }
    return error;
  }
  Napi::Value result(Napi::Env env) {
    if (locked_) return wrap(env, locked_);
    return Napi::String::New(env, absent_ ? "absent" : "busy");
  }

 private:
  Ref<ManagedFolder> managed_;
  std::string slot_;
  const bool heed_older_;
  Ref<LockedSlot> locked_;
  bool absent_ = false;
};

class OpenSlotImage {
 public:
  OpenSlotImage(Ref<LockedSlot> locked, bool must_know) : locked_(std::move(locked)), must_know_(must_know) {}
  Error run() {
    Error error = locked_->open_image(&image_, &info_);
    if (error.ok()) holders_ = open_elsewhere(image_->fd());
    return error.ok() && must_know_ ? require_known(holders_, image_->path()) : error;
  }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("source", wrap(env, image_));
    object.Set("info", microvm::to_js(env, info_));
    object.Set("inUse", holders_ == Openness::kOpen);
    return object;
  }

 private:
  Ref<LockedSlot> locked_;
  bool must_know_;
  Ref<Source> image_;
  FileInfo info_;
  Openness holders_ = Openness::kUnknown;
};

class ReplaceImage {
 public:
  ReplaceImage(Ref<LockedSlot> locked, Ref<StagedSlot> staged, Replacement replacement)
      : locked_(std::move(locked)), staged_(std::move(staged)), replacement_(std::move(replacement)) {}
  Error run() {
    Error error = locked_->replace(*staged_, replacement_, &replaced_);
    staged_->discard();
    return error;
  }
  Napi::Value result(Napi::Env env) { return Napi::String::New(env, name_of(replaced_)); }

 private:
  Ref<LockedSlot> locked_;
  Ref<StagedSlot> staged_;
  Replacement replacement_;
  LockedSlot::Replaced replaced_ = LockedSlot::Replaced::kDone;
};

}  // namespace

Napi::Value lock_slot(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  return Job<LockSlot>::start(info.Env(), "microvm:lockSlot",
                              LockSlot(std::move(managed), to_string(info[1]), to_bool(info[2])));
}

Napi::Value open_slot_image(const Napi::CallbackInfo& info) {
  Ref<LockedSlot> locked = unwrap<LockedSlot>(info[0]);
  if (!locked) return {};
  return Job<OpenSlotImage>::start(info.Env(), "microvm:openSlotImage",
                                   OpenSlotImage(std::move(locked), to_bool(info[1])));
}

Napi::Value replace_image(const Napi::CallbackInfo& info) {
  Ref<LockedSlot> locked = unwrap<LockedSlot>(info[0]);
  if (!locked) return {};
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[1]);
  if (!staged) return {};
  Napi::Object object = info[2].As<Napi::Object>();
  Replacement replacement;
  replacement.image = unwrap<Source>(object.Get("image"));
  if (!replacement.image) return {};
  replacement.expected = to_identity(object.Get("expected").As<Napi::Object>());
  replacement.size_stamp = to_string(object.Get("sizeStamp"));
  replacement.refuse_in_use = to_bool(object.Get("refuseInUse"));
  return Job<ReplaceImage>::start(info.Env(), "microvm:replaceImage",
                                  ReplaceImage(std::move(locked), std::move(staged), std::move(replacement)));
}

Napi::Value finish_grow(const Napi::CallbackInfo& info) {
  Ref<LockedSlot> locked = unwrap<LockedSlot>(info[0]);
  if (!locked) return {};
  return start_silent(info.Env(), "microvm:finishGrow", [locked] { return locked->finish_grow(); });
}

}  // namespace microvm
