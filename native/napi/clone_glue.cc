#include "napi/clone_glue.h"

#include <string>
#include <utility>
#include <vector>

#include "napi/job.h"
#include "napi/kinds.h"
#include "napi/slot_js.h"
#include "slot/clone_slot.h"
#include "slot/fork.h"
#include "system/idle_io.h"

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

enum class Until { kPublish, kStage, kStageImage, kPublishFile };  // how far a clone goes

class CloneSlot {
 public:
  CloneSlot(Ref<ManagedFolder> managed, Ref<Source> source, Ref<SharedPlan> plan, SlotName name, Until until)
      : managed_(std::move(managed)),
        source_(std::move(source)),
        plan_(std::move(plan)),
        name_(std::move(name)),
        until_(until) {}

  Error run() {
    if (until_ == Until::kStageImage) {
      Error error = stage_slot(managed_, source_, plan_, &outcome_);
      if (error.ok() && outcome_.status == CloneStatus::kStaged) outcome_.staged->hand_over();
      return error;
    }
    if (until_ == Until::kPublishFile) return clone_file(managed_, plan_, name_, &outcome_);
    return clone_slot(managed_, source_, plan_, name_, until_ == Until::kPublish, &outcome_);
  }

  Napi::Value result(Napi::Env env) {
    const bool created = outcome_.status == CloneStatus::kCreated;
    if (created && outcome_.pooled) return Napi::String::New(env, "pooled");
    const bool source_changed = created && !outcome_.source_now.identical(plan_->get().expected);
    if (created && outcome_.strategy == Rung::kReflink && !source_changed) return Napi::String::New(env, "reflinked");
    Napi::Object object = Napi::Object::New(env);
    object.Set("status", name_of(outcome_.status));
    if (outcome_.status == CloneStatus::kExists) {
      object.Set("existing", to_js(env, outcome_.existing));
      return object;
    }
    object.Set("strategy", name_of(outcome_.strategy));
    object.Set("attempts", to_js(env, outcome_.attempts));
    if (outcome_.staged) {
      object.Set("staged", wrap(env, outcome_.staged));
      object.Set("imagePath", outcome_.staged->image_path());
    }
    if (source_changed) object.Set("sourceNow", microvm::to_js(env, outcome_.source_now));
    return object;
  }

 private:
  Ref<ManagedFolder> managed_;
  Ref<Source> source_;
  Ref<SharedPlan> plan_;
  SlotName name_;
  Until until_;
  CloneOutcome outcome_;
};

// Many clones, each with an outcome or an error of its own.
class CloneSlots {
 public:
  explicit CloneSlots(std::vector<CloneSlot> tasks) : tasks_(std::move(tasks)) {}

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

class ForkSlot {
 public:
  ForkSlot(Ref<ManagedFolder> managed, ForkRequest request)
      : managed_(std::move(managed)), request_(std::move(request)) {}
  Error run() { return fork_slot(managed_, request_, &parent_, &status_); }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("status", name_of(status_));
    object.Set("parent", to_js(env, parent_));
    return object;
  }

 private:
  Ref<ManagedFolder> managed_;
  ForkRequest request_;
  SlotState parent_;
  CloneStatus status_ = CloneStatus::kCopyNeeded;
};

class CopyStep {
 public:
  CopyStep(Ref<StagedSlot> staged, uint64_t budget, bool idle)
      : staged_(std::move(staged)), budget_(budget), idle_(idle) {}
  Error run() {
    IdleIo io(idle_);
    return staged_->copy_step(budget_, &done_);
  }
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
  bool idle_;
  bool done_ = false;
};

class PublishSlot {
 public:
  PublishSlot(Ref<StagedSlot> staged, Place place, std::string name, uint64_t size, std::vector<Sidecar> sidecars)
      : staged_(std::move(staged)),
        place_(place),
        name_(std::move(name)),
        size_(size),
        sidecars_(std::move(sidecars)) {}
  Error run() { return staged_->publish(place_, name_, size_, sidecars_, &status_); }
  Napi::Value result(Napi::Env env) { return Napi::String::New(env, name_of(status_)); }

 private:
  Ref<StagedSlot> staged_;
  Place place_;
  std::string name_;
  uint64_t size_;
  std::vector<Sidecar> sidecars_;
  CloneStatus status_ = CloneStatus::kSourceChanged;
};

// Reads [source, plan, slot, raw id, ready]. False, with an exception pending, if a handle is not valid.
template <class Arguments>
bool to_clone(const Ref<ManagedFolder>& managed, const Arguments& at, Until until, std::vector<CloneSlot>* clones) {
  Ref<Source> source = unwrap<Source>(at(0));
  if (!source) return false;
  Ref<SharedPlan> plan = unwrap<SharedPlan>(at(1));
  if (!plan) return false;
  SlotName name = {to_string(at(2)), to_string(at(3)), to_string(at(4))};
  clones->push_back(CloneSlot(managed, std::move(source), std::move(plan), std::move(name), until));
  return true;
}

// Starts a clone on another thread, or runs it on this one.
Napi::Value clone_with(const Napi::CallbackInfo& info, Napi::Value (*run)(Napi::Env, CloneSlot), Until until) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  std::vector<CloneSlot> clones;
  if (!to_clone(
          managed, [&](size_t i) { return info[i + 1]; }, until, &clones))
    return {};
  return run(info.Env(), std::move(clones.front()));
}

Napi::Value start_clone(Napi::Env env, CloneSlot task) {
  return Job<CloneSlot>::start(env, "microvm:cloneSlot", std::move(task));
}

// On the calling thread: the result, or an error thrown.
Napi::Value run_clone(Napi::Env env, CloneSlot task) {
  Error error = task.run();
  if (error.ok()) return task.result(env);
  napi_throw(env, microvm::to_js(env, error));
  return {};
}

}  // namespace

Napi::Value clone_slot(const Napi::CallbackInfo& info) { return clone_with(info, start_clone, Until::kPublish); }
Napi::Value clone_slot_sync(const Napi::CallbackInfo& info) { return clone_with(info, run_clone, Until::kPublish); }
Napi::Value stage_slot(const Napi::CallbackInfo& info) { return clone_with(info, start_clone, Until::kStage); }

// Clones the file at the plan's path: [managed, plan, slot, raw id, ready].
Napi::Value clone_file(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  Ref<SharedPlan> plan = unwrap<SharedPlan>(info[1]);
  if (!plan) return {};
  SlotName name = {to_string(info[2]), to_string(info[3]), to_string(info[4])};
  return start_clone(
      info.Env(), CloneSlot(std::move(managed), Ref<Source>(), std::move(plan), std::move(name), Until::kPublishFile));
}

Napi::Value new_plan(const Napi::CallbackInfo& info) {
  return wrap(info.Env(), Ref<SharedPlan>(new SharedPlan(to_plan(info[0].As<Napi::Object>()))));
}

// A plan for this one image.
Napi::Value stage_image(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  Ref<Source> source = unwrap<Source>(info[1]);
  if (!source) return {};
  Ref<SharedPlan> plan(new SharedPlan(to_plan(info[2].As<Napi::Object>())));
  return start_clone(info.Env(),
                     CloneSlot(std::move(managed), std::move(source), std::move(plan), SlotName(), Until::kStageImage));
}

// [clone, …]: one trip for all of them.
Napi::Value clone_slots(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  Napi::Array array = info[1].As<Napi::Array>();
  std::vector<CloneSlot> clones;
  for (uint32_t i = 0; i < array.Length(); i++) {
    Napi::Array clone = array.Get(i).As<Napi::Array>();
    if (clone.IsEmpty()) return {};  // a worker that is being terminated
    const auto at = [&](uint32_t k) { return Napi::Value(clone.Get(k)); };
    if (!to_clone(managed, at, Until::kPublish, &clones)) return {};
  }
  return Job<CloneSlots>::start(info.Env(), "microvm:cloneSlots", CloneSlots(std::move(clones)));
}

Napi::Value fork_slot(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  Napi::Object object = info[1].As<Napi::Object>();
  ForkRequest request;
  request.from = to_string(object.Get("from"));
  request.from_raw_id = to_string(object.Get("fromRawId"));
  request.template_sha256 = to_string(object.Get("templateSha256"));
  request.template_size = to_size(object.Get("templateBytes"));
  request.name = {to_string(object.Get("slot")), to_string(object.Get("rawId")), ""};
  request.owner_and_mode = to_owner_and_mode(object);
  request.durable = to_bool(object.Get("durable"));
  return Job<ForkSlot>::start(info.Env(), "microvm:forkSlot", ForkSlot(std::move(managed), std::move(request)));
}

Napi::Value copy_step(const Napi::CallbackInfo& info) {
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[0]);
  if (!staged) return {};
  return Job<CopyStep>::start(info.Env(), "microvm:copyStep",
                              CopyStep(std::move(staged), to_size(info[1]), to_bool(info[2])));
}

Napi::Value publish_slot(const Napi::CallbackInfo& info) {
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[0]);
  if (!staged) return {};
  return Job<PublishSlot>::start(
      info.Env(), "microvm:publishSlot",
      PublishSlot(std::move(staged), to_place(info[1]), to_string(info[2]), to_size(info[3]), to_sidecars(info[4])));
}

Napi::Value discard_slot(const Napi::CallbackInfo& info) {
  Ref<StagedSlot> staged = unwrap<StagedSlot>(info[0]);
  if (!staged) return {};
  dispose(info);  // closes its descriptors with the job rather than at the next garbage collection
  return start_silent(info.Env(), "microvm:discardSlot", [staged] {
    staged->discard();
    return Error();
  });
}

}  // namespace microvm
