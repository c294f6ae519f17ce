#include "slot_glue.h"

#include <string>
#include <utility>
#include <vector>

#include "dress.h"
#include "job.h"
#include "kinds.h"
#include "lease.h"
#include "locked_slot.h"
#include "release.h"
#include "slot_state.h"
#include "staged_slot.h"
#include "store.h"

namespace microvm {
namespace {

const char* name_of(Rung rung) {
  switch (rung) {
    case Rung::kReflink:
      return "reflink";
    case Rung::kHardlink:
      return "hardlink";
    case Rung::kCopy:
      return "copy";
  }
  return "";
}

const char* name_of(CloneStatus status) {
  switch (status) {
    case CloneStatus::kStaged:
      return "staged";
    case CloneStatus::kCopyNeeded:
      return "copy-needed";
    case CloneStatus::kCreated:
      return "created";
    case CloneStatus::kExists:
      return "exists";
    case CloneStatus::kTemplateChanged:
      return "template-changed";
    case CloneStatus::kSourceChanged:
      return "source-changed";
    case CloneStatus::kSharedInode:
      return "shared-inode";
  }
  return "";
}

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

const char* name_of(ReleaseStatus status) {
  switch (status) {
    case ReleaseStatus::kReleased:
      return "released";
    case ReleaseStatus::kAbsent:
      return "absent";
    case ReleaseStatus::kForeign:
      return "foreign";
    case ReleaseStatus::kCollision:
      return "collision";
    case ReleaseStatus::kInUse:
      return "in-use";
    case ReleaseStatus::kTorn:
      return "torn";
  }
  return "";
}

// A string, undefined if there is no such file, null if it is nothing that could be read.
Napi::Value to_js(Napi::Env env, const SmallFile& file) {
  switch (file.state) {
    case SmallFile::State::kAbsent:
      return env.Undefined();
    case SmallFile::State::kUnusable:
      return env.Null();
    case SmallFile::State::kPresent:
      break;
  }
  return Napi::String::New(env, file.contents);
}

Napi::Value to_js(Napi::Env env, const SlotState& state) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", state.kind == SlotState::Kind::kAbsent   ? "absent"
                     : state.kind == SlotState::Kind::kFolder ? "folder"
                                                              : "foreign");
  if (state.has_image) object.Set("image", microvm::to_js(env, state.image));
  if (state.kind == SlotState::Kind::kFolder) object.Set("folder", microvm::to_js(env, state.folder));
  object.Set("sharesExtents", state.shares_extents);
  object.Set("stamp", to_js(env, state.stamp));
  object.Set("sizeStamp", to_js(env, state.size_stamp));
  object.Set("newSizeStamp", to_js(env, state.new_size_stamp));
  object.Set("rawId", to_js(env, state.raw_id));
  return object;
}

Napi::Value to_js(Napi::Env env, const std::vector<Attempt>& attempts) {
  Napi::Array array = Napi::Array::New(env, attempts.size());
  for (size_t i = 0; i < attempts.size(); i++) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("strategy", name_of(attempts[i].rung));
    object.Set("errno", -attempts[i].code);
    array.Set(static_cast<uint32_t>(i), object);
  }
  return array;
}

Dress to_dress(Napi::Object object) {
  Dress dress;
  Napi::Value owner = object.Get("owner");
  if (owner.IsObject()) {
    dress.has_owner = true;
    dress.uid = static_cast<uint32_t>(to_size(owner.As<Napi::Object>().Get("uid")));
    dress.gid = static_cast<uint32_t>(to_size(owner.As<Napi::Object>().Get("gid")));
  }
  Napi::Value mode = object.Get("mode");
  if (mode.IsNumber()) {
    dress.has_mode = true;
    dress.mode = static_cast<uint32_t>(to_size(mode));
  }
  return dress;
}

// [name, contents, name, contents, …]
std::vector<Companion> to_companions(Napi::Value value) {
  std::vector<Companion> companions;
  if (!value.IsArray()) return companions;
  Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i + 1 < array.Length(); i += 2) {
    companions.push_back({to_string(array.Get(i)), to_string(array.Get(i + 1))});
  }
  return companions;
}

SlotPlan to_plan(Napi::Object object) {
  SlotPlan plan;
  plan.slot = to_string(object.Get("slot"));
  plan.companions = to_companions(object.Get("companions"));
  plan.expected = to_identity(object.Get("expected").As<Napi::Object>());
  Napi::Value path = object.Get("templatePath");
  if (path.IsString()) {
    plan.template_path = to_string(path);
    plan.template_expected = to_identity(object.Get("templateExpected").As<Napi::Object>());
  }
  plan.rungs = static_cast<unsigned>(to_size(object.Get("rungs")));
  plan.packed = to_bool(object.Get("packed"));
  plan.durable = to_bool(object.Get("durable"));
  plan.dress = to_dress(object);
  plan.ready = to_string(object.Get("ready"));
  plan.raw_id = to_string(object.Get("rawId"));
  return plan;
}

Place to_place(Napi::Value value) {
  const std::string name = to_string(value);
  return name == "sealed" ? Place::kSealed : name == "pool" ? Place::kPool : Place::kSlots;
}

class OpenStore {
 public:
  explicit OpenStore(std::string path) : path_(std::move(path)) {}
  Error run() {
    Error error = Store::open(path_, &store_);
    return error.ok() ? store_->probe_reflink(&reflinks_) : error;
  }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("store", wrap(env, store_));
    object.Set("sessionPath", store_->session_path());
    object.Set("reflinks", reflinks_);
    return object;
  }

 private:
  std::string path_;
  Ref<Store> store_;
  bool reflinks_ = false;
};

class LeaveStore {
 public:
  explicit LeaveStore(Ref<Store> store) : store_(std::move(store)) {}
  Error run() { return store_->leave(); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }

 private:
  Ref<Store> store_;
};

class SweepStore {
 public:
  SweepStore(Ref<Store> store, uint64_t budget) : store_(std::move(store)), budget_(budget) {}
  Error run() { return store_->sweep(budget_, &report_); }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("stagingRemoved", static_cast<double>(report_.staging_removed));
    object.Set("trashRemoved", static_cast<double>(report_.trash_removed));
    object.Set("more", report_.more);
    return object;
  }

 private:
  Ref<Store> store_;
  uint64_t budget_;
  SweepReport report_;
};

class InspectSlot {
 public:
  InspectSlot(Ref<Store> store, std::string slot) : store_(std::move(store)), slot_(std::move(slot)) {}
  Error run() {
    Error error = store_->check_current();
    return error.ok() ? read_slot(*store_, slot_, &state_) : error;
  }
  Napi::Value result(Napi::Env env) { return to_js(env, state_); }

 private:
  Ref<Store> store_;
  std::string slot_;
  SlotState state_;
};

enum class Extent { kPublish, kStage, kStageReplacement };  // how far a clone goes

class CloneSlot {
 public:
  CloneSlot(Ref<Store> store, Ref<Source> source, SlotPlan plan, Extent extent)
      : store_(std::move(store)), source_(std::move(source)), plan_(std::move(plan)), extent_(extent) {}

  Error run() {
    if (extent_ == Extent::kStageReplacement) return stage_slot(store_, source_, plan_, &outcome_);
    return clone_slot(store_, source_, plan_, extent_ == Extent::kPublish, &outcome_);
  }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("status", name_of(outcome_.status));
    if (outcome_.status == CloneStatus::kExists) {
      object.Set("existing", to_js(env, outcome_.existing));
      return object;
    }
    object.Set("pooled", outcome_.pooled);
    object.Set("strategy", name_of(outcome_.strategy));
    object.Set("attempts", to_js(env, outcome_.attempts));
    if (outcome_.staged) {
      object.Set("staged", wrap(env, outcome_.staged));
      object.Set("imagePath", outcome_.staged->image_path());
    }
    if (outcome_.status == CloneStatus::kCreated && !outcome_.pooled && !outcome_.source_now.identical(plan_.expected)) {
      object.Set("sourceNow", microvm::to_js(env, outcome_.source_now));
    }
    return object;
  }

 private:
  Ref<Store> store_;
  Ref<Source> source_;
  SlotPlan plan_;
  Extent extent_;
  CloneOutcome outcome_;
};

// Many clones, each with an outcome or an error of its own.
class CloneSlots {
 public:
  void add(CloneSlot task) { tasks_.push_back(std::move(task)); }

  Error run() {
    for (CloneSlot& task : tasks_) errors_.push_back(task.run());
    return {};
  }

  Napi::Value result(Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, tasks_.size());
    for (size_t i = 0; i < tasks_.size(); i++) {
      array.Set(static_cast<uint32_t>(i), errors_[i].ok() ? tasks_[i].result(env) : microvm::to_js(env, errors_[i]));
    }
    return array;
  }

 private:
  std::vector<CloneSlot> tasks_;
  std::vector<Error> errors_;
};

class CopyStep {
 public:
  CopyStep(Ref<StagedSlot> staged, uint64_t budget) : staged_(std::move(staged)), budget_(budget) {}
  Error run() { return staged_->copy_step(budget_, &done_); }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("bytesDone", static_cast<double>(staged_->copied()));
    object.Set("done", done_);
    if (done_ && !staged_->sha256().empty()) object.Set("sha256", staged_->sha256());
    return object;
  }

 private:
  Ref<StagedSlot> staged_;
  uint64_t budget_;
  bool done_ = false;
};

class PublishSlot {
 public:
  PublishSlot(Ref<StagedSlot> staged, Place place, std::string name, uint64_t size, std::vector<Companion> companions)
      : staged_(std::move(staged)),
        place_(place),
        name_(std::move(name)),
        size_(size),
        companions_(std::move(companions)) {}
  Error run() { return staged_->publish(place_, name_, size_, companions_, &status_); }
  Napi::Value result(Napi::Env env) { return Napi::String::New(env, name_of(status_)); }

 private:
  Ref<StagedSlot> staged_;
  Place place_;
  std::string name_;
  uint64_t size_;
  std::vector<Companion> companions_;
  CloneStatus status_ = CloneStatus::kSourceChanged;
};

class DiscardSlot {
 public:
  explicit DiscardSlot(Ref<StagedSlot> staged) : staged_(std::move(staged)) {}
  Error run() {
    staged_->discard();
    return {};
  }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }

 private:
  Ref<StagedSlot> staged_;
};

class LockSlot {
 public:
  LockSlot(Ref<Store> store, std::string slot) : store_(std::move(store)), slot_(std::move(slot)) {}
  // Held by another and gone meanwhile are answers, not failures.
  Error run() {
    Error error = LockedSlot::open(store_, slot_, &locked_);
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
  Ref<Store> store_;
  std::string slot_;
  Ref<LockedSlot> locked_;
  bool absent_ = false;
};

class SettleSlot {
 public:
  explicit SettleSlot(Ref<LockedSlot> locked) : locked_(std::move(locked)) {}
  Error run() { return locked_->settle(); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }

 private:
  Ref<LockedSlot> locked_;
};

class OpenSlotImage {
 public:
  explicit OpenSlotImage(Ref<LockedSlot> locked) : locked_(std::move(locked)) {}
  Error run() {
    Error error = locked_->open_image(&image_, &info_);
    if (error.ok()) holders_ = open_elsewhere(image_->fd());
    return error;
  }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("source", wrap(env, image_));
    object.Set("info", microvm::to_js(env, info_));
    if (holders_ != Openness::kUnknown) object.Set("inUse", holders_ == Openness::kOpen);
    return object;
  }

 private:
  Ref<LockedSlot> locked_;
  Ref<Source> image_;
  FileInfo info_;
  Openness holders_ = Openness::kUnknown;
};

class ReplaceImage {
 public:
  ReplaceImage(Ref<LockedSlot> locked, Ref<StagedSlot> staged, Ref<Source> image, Identity expected,
               std::string size_stamp, bool refuse_in_use)
      : locked_(std::move(locked)),
        staged_(std::move(staged)),
        image_(std::move(image)),
        expected_(expected),
        size_stamp_(std::move(size_stamp)),
        refuse_in_use_(refuse_in_use) {}
  Error run() {
    Error error = locked_->replace(*staged_, *image_, expected_, size_stamp_, refuse_in_use_, &replaced_);
    staged_->discard();
    return error;
  }
  Napi::Value result(Napi::Env env) { return Napi::String::New(env, name_of(replaced_)); }

 private:
  Ref<LockedSlot> locked_;
  Ref<StagedSlot> staged_;
  Ref<Source> image_;
  Identity expected_;
  std::string size_stamp_;
  bool refuse_in_use_;
  LockedSlot::Replaced replaced_ = LockedSlot::Replaced::kDone;
};

class DressSlot {
 public:
  DressSlot(Ref<Store> store, std::string slot, Identity expected, Dress dress)
      : store_(std::move(store)), slot_(std::move(slot)), expected_(expected), dress_(dress) {}
  Error run() { return microvm::dress_slot(*store_, slot_, expected_, dress_); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }

 private:
  Ref<Store> store_;
  std::string slot_;
  Identity expected_;
  Dress dress_;
};

class DiscardFolder {
 public:
  DiscardFolder(Ref<Store> store, Place place, std::string name)
      : store_(std::move(store)), place_(place), name_(std::move(name)) {}
  Error run() { return microvm::discard_folder(*store_, place_, name_); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }

 private:
  Ref<Store> store_;
  Place place_;
  std::string name_;
};

class ReleaseSlot {
 public:
  ReleaseSlot(Ref<Store> store, ReleaseRequest request) : store_(std::move(store)), request_(std::move(request)) {}
  Error run() { return release_slot(*store_, request_, &status_, &raw_id_); }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("status", name_of(status_));
    object.Set("rawId", raw_id_);
    return object;
  }

 private:
  Ref<Store> store_;
  ReleaseRequest request_;
  ReleaseStatus status_ = ReleaseStatus::kAbsent;
  std::string raw_id_;
};

}  // namespace

Napi::Value open_store(const Napi::CallbackInfo& info) {
  return Job<OpenStore>::start(info.Env(), "microvm:openStore", OpenStore(to_string(info[0])));
}

Napi::Value leave_store(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<LeaveStore>::start(info.Env(), "microvm:leaveStore", LeaveStore(std::move(store)));
}

Napi::Value sweep_store(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<SweepStore>::start(info.Env(), "microvm:sweep", SweepStore(std::move(store), to_size(info[1])));
}

Napi::Value inspect_slot(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<InspectSlot>::start(info.Env(), "microvm:inspectSlot", InspectSlot(std::move(store), to_string(info[1])));
}

namespace {

// Starts what a clone consists of on another thread, or runs it on this one.
template <Napi::Value (*launch)(Napi::Env, CloneSlot)>
Napi::Value clone_with(const Napi::CallbackInfo& info, Extent extent) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  Ref<Source> source = unwrap<Source>(info[1]);
  if (!source) return {};
  return launch(info.Env(), CloneSlot(std::move(store), std::move(source), to_plan(info[2].As<Napi::Object>()), extent));
}

Napi::Value start_clone(Napi::Env env, CloneSlot task) {
  return Job<CloneSlot>::start(env, "microvm:cloneSlot", std::move(task));
}

Napi::Value run_clone(Napi::Env env, CloneSlot task) { return run_here(env, std::move(task)); }

}  // namespace

Napi::Value clone_slot(const Napi::CallbackInfo& info) { return clone_with<start_clone>(info, Extent::kPublish); }
Napi::Value clone_slot_sync(const Napi::CallbackInfo& info) { return clone_with<run_clone>(info, Extent::kPublish); }
Napi::Value stage_slot(const Napi::CallbackInfo& info) { return clone_with<start_clone>(info, Extent::kStage); }
Napi::Value stage_replacement(const Napi::CallbackInfo& info) {
  return clone_with<start_clone>(info, Extent::kStageReplacement);
}

// [[source, plan], …]: one trip for all of them.
Napi::Value clone_slots(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  Napi::Array pairs = info[1].As<Napi::Array>();
  CloneSlots task;
  for (uint32_t i = 0; i < pairs.Length(); i++) {
    Napi::Array pair = pairs.Get(i).As<Napi::Array>();
    Ref<Source> source = unwrap<Source>(pair.Get(0u));
    if (!source) return {};
    task.add(CloneSlot(store, std::move(source), to_plan(pair.Get(1u).As<Napi::Object>()), Extent::kPublish));
  }
  return Job<CloneSlots>::start(info.Env(), "microvm:cloneSlots", std::move(task));
}

Napi::Value copy_step(const Napi::CallbackInfo& info) {
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[0]);
  if (!staged) return {};
  return Job<CopyStep>::start(info.Env(), "microvm:copyStep", CopyStep(std::move(staged), to_size(info[1])));
}

Napi::Value publish_slot(const Napi::CallbackInfo& info) {
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[0]);
  if (!staged) return {};
  return Job<PublishSlot>::start(info.Env(), "microvm:publishSlot",
                                 PublishSlot(std::move(staged), to_place(info[1]), to_string(info[2]),
                                             to_size(info[3]), to_companions(info[4])));
}

Napi::Value discard_slot(const Napi::CallbackInfo& info) {
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[0]);
  if (!staged) return {};
  return Job<DiscardSlot>::start(info.Env(), "microvm:discardSlot", DiscardSlot(std::move(staged)));
}

Napi::Value lock_slot(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<LockSlot>::start(info.Env(), "microvm:lockSlot", LockSlot(std::move(store), to_string(info[1])));
}

Napi::Value settle_slot(const Napi::CallbackInfo& info) {
  Ref<LockedSlot> locked = unwrap<LockedSlot>(info[0]);
  if (!locked) return {};
  return Job<SettleSlot>::start(info.Env(), "microvm:settleSlot", SettleSlot(std::move(locked)));
}

Napi::Value open_slot_image(const Napi::CallbackInfo& info) {
  Ref<LockedSlot> locked = unwrap<LockedSlot>(info[0]);
  if (!locked) return {};
  return Job<OpenSlotImage>::start(info.Env(), "microvm:openSlotImage", OpenSlotImage(std::move(locked)));
}

Napi::Value replace_image(const Napi::CallbackInfo& info) {
  Ref<LockedSlot> locked = unwrap<LockedSlot>(info[0]);
  if (!locked) return {};
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[1]);
  if (!staged) return {};
  Ref<Source> image = unwrap<Source>(info[2]);
  if (!image) return {};
  return Job<ReplaceImage>::start(
      info.Env(), "microvm:replaceImage",
      ReplaceImage(std::move(locked), std::move(staged), std::move(image), to_identity(info[3].As<Napi::Object>()),
                   to_string(info[4]), to_bool(info[5])));
}

Napi::Value dress_slot(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<DressSlot>::start(
      info.Env(), "microvm:dressSlot",
      DressSlot(std::move(store), to_string(info[1]), to_identity(info[2].As<Napi::Object>()),
                to_dress(info[3].As<Napi::Object>())));
}

Napi::Value discard_folder(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<DiscardFolder>::start(info.Env(), "microvm:discardFolder",
                                   DiscardFolder(std::move(store), to_place(info[1]), to_string(info[2])));
}

Napi::Value release_slot(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  Napi::Object object = info[1].As<Napi::Object>();
  ReleaseRequest request;
  request.slot = to_string(object.Get("slot"));
  request.raw_id = to_string(object.Get("rawId"));
  request.refuse_in_use = to_bool(object.Get("refuseInUse"));
  request.durable = to_bool(object.Get("durable"));
  Napi::Value torn = object.Get("torn");
  if (torn.IsObject()) {
    request.torn = true;
    request.expected = to_identity(torn.As<Napi::Object>());
  }
  return Job<ReleaseSlot>::start(info.Env(), "microvm:releaseSlot",
                                 ReleaseSlot(std::move(store), std::move(request)));
}

}  // namespace microvm
