#include "napi/slot_glue.h"

#include <string>
#include <utility>
#include <vector>

#include "napi/job.h"
#include "napi/kinds.h"
#include "napi/slot_js.h"
#include "slot/flush_copies.h"
#include "slot/identify_images.h"
#include "slot/managed_folder.h"
#include "slot/release.h"
#include "slot/slot_owner_mode.h"
#include "slot/slot_state.h"
#include "system/file.h"

namespace microvm {
namespace {

const char* name_of(ReleaseStatus status) {
  switch (status) {
    case ReleaseStatus::kReleased:
      return "released";
    case ReleaseStatus::kAbsent:
      return "absent";
    case ReleaseStatus::kNotASlot:
      return "not-a-slot";
    case ReleaseStatus::kCollision:
      return "collision";
    case ReleaseStatus::kInUse:
      return "in-use";
    case ReleaseStatus::kTorn:
      return "torn";
    case ReleaseStatus::kBusy:
      return "busy";
  }
  return "";
}

// Many in one trip, each with its state or its error.
class InspectSlots {
 public:
  InspectSlots(Ref<ManagedFolder> managed, std::vector<std::string> slots, Look look = Look::kAll)
      : managed_(std::move(managed)), slots_(std::move(slots)), look_(look) {}

  Error run() {
    Error error = managed_->check_current();
    if (!error.ok()) return error;
    states_.resize(slots_.size());
    for (size_t i = 0; i < slots_.size(); i++) errors_.push_back(read_slot(*managed_, slots_[i], look_, &states_[i]));
    return {};
  }

  Napi::Value result(Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, slots_.size());
    for (uint32_t i = 0; i < slots_.size(); i++) {
      array.Set(i, errors_[i].ok() ? to_js(env, states_[i]) : microvm::to_js(env, errors_[i]));
    }
    return array;
  }

 protected:
  Ref<ManagedFolder> managed_;
  std::vector<std::string> slots_;
  Look look_;
  std::vector<SlotState> states_;
  std::vector<Error> errors_;
};

// The same as a table of numbers and a table of texts, because making objects would take longer than reading the slots.
class SurveySlots final : public InspectSlots {
 public:
  SurveySlots(Ref<ManagedFolder> managed, std::vector<std::string> slots)
      : InspectSlots(std::move(managed), std::move(slots), Look::kListed) {}

  Napi::Value result(Napi::Env env) {
    constexpr size_t kNumbers = 5;
    constexpr uint32_t kTexts = 6;
    Napi::Float64Array numbers = Napi::Float64Array::New(env, slots_.size() * kNumbers);
    Napi::Array texts = Napi::Array::New(env, slots_.size() * kTexts);
    if (numbers.IsEmpty() || numbers.ElementLength() != slots_.size() * kNumbers) return {};  // being terminated
    for (uint32_t i = 0; i < slots_.size(); i++) {
      const SlotState& state = states_[i];
      double* number = numbers.Data() + i * kNumbers;
      const uint32_t text = i * kTexts;
      number[0] = static_cast<double>(state.kind);
      number[1] = !state.has_image ? -1 : state.image.is_regular() ? 1 : 0;
      number[2] = static_cast<double>(state.image.identity.size);
      number[3] = static_cast<double>(state.created_ms());
      number[4] = state.has_sidecars ? 1 : 0;
      const SmallFile* const files[kTexts] = {&state.stamp,  &state.size_stamp, &state.new_size_stamp,
                                              &state.raw_id, &state.stack,      &state.unsettled};
      for (uint32_t k = 0; k < kTexts; k++) {
        if (files[k]->state != SmallFile::State::kAbsent) texts.Set(text + k, to_js(env, *files[k]));
      }
      if (!errors_[i].ok()) texts.Set(text, microvm::to_js(env, errors_[i]));
    }
    Napi::Array tables = Napi::Array::New(env, 2);
    tables.Set(0U, numbers);
    tables.Set(1U, texts);
    return tables;
  }
};

class ReleaseSlot {
 public:
  ReleaseSlot(Ref<ManagedFolder> managed, ReleaseRequest request)
      : managed_(std::move(managed)), request_(std::move(request)) {}
  Error run() { return release_slot(*managed_, request_, &status_, &raw_id_); }
  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("status", name_of(status_));
    object.Set("rawId", raw_id_);
    return object;
  }

 private:
  Ref<ManagedFolder> managed_;
  ReleaseRequest request_;
  ReleaseStatus status_ = ReleaseStatus::kAbsent;
  std::string raw_id_;
};

class IdentifyImages {
 public:
  IdentifyImages(std::string folder, std::vector<std::string> names, Follow follow)
      : folder_(std::move(folder)), names_(std::move(names)), follow_(follow) {}
  Error run() { return identify_images(folder_, names_, follow_, &images_); }
  Napi::Value result(Napi::Env env) {
    Napi::BigUint64Array files = Napi::BigUint64Array::New(env, 2 * images_.size());
    for (size_t i = 0; i < images_.size(); i++) {
      files[2 * i] = images_[i].device;
      files[2 * i + 1] = images_[i].inode;
    }
    return files;
  }

 private:
  std::string folder_;
  std::vector<std::string> names_;
  Follow follow_;
  std::vector<Identity> images_;
};

}  // namespace

Napi::Value inspect_slots(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  return Job<InspectSlots>::start(info.Env(), "microvm:inspectSlots",
                                  InspectSlots(std::move(managed), to_strings(info[1])));
}

Napi::Value survey_slots(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  return Job<SurveySlots>::start(info.Env(), "microvm:surveySlots",
                                 SurveySlots(std::move(managed), to_strings(info[1])));
}

Napi::Value release_slot(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
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
  Napi::Value snapshot = object.Get("snapshotFd");
  if (snapshot.IsNumber()) request.snapshot_fd = snapshot.As<Napi::Number>().Int32Value();
  return Job<ReleaseSlot>::start(info.Env(), "microvm:releaseSlot",
                                 ReleaseSlot(std::move(managed), std::move(request)));
}

Napi::Value set_slot_owner_and_mode(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  const Identity folder = to_identity(info[2].As<Napi::Object>());
  const Identity image = to_identity(info[3].As<Napi::Object>());
  const OwnerAndMode owner_and_mode = to_owner_and_mode(info[4].As<Napi::Object>());
  return start_yes_or_no(info.Env(), "microvm:setSlotOwnerAndMode",
                         [managed, slot = to_string(info[1]), folder, image, owner_and_mode](bool* same) {
                           return set_slot_owner_and_mode(*managed, slot, folder, image, owner_and_mode, same);
                         });
}

Napi::Value identify_images(const Napi::CallbackInfo& info) {
  const Follow follow = to_bool(info[2]) ? Follow::kYes : Follow::kNo;
  return Job<IdentifyImages>::start(info.Env(), "microvm:identifyImages",
                                    IdentifyImages(to_string(info[0]), to_strings(info[1]), follow));
}

Napi::Value flush_slot(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  const Identity folder = to_identity(info[2].As<Napi::Object>());
  return start_yes_or_no(info.Env(), "microvm:flushSlot", [managed, slot = to_string(info[1]), folder](bool* same) {
    return flush_slot(*managed, slot, folder, same);
  });
}

Napi::Value flush_copied_slots(const Napi::CallbackInfo& info) {
  Ref<ManagedFolder> managed = unwrap<ManagedFolder>(info[0]);
  if (!managed) return {};
  return start_silent(info.Env(), "microvm:flushCopiedSlots",
                      [managed, slots = to_strings(info[1]), boot_id = to_string(info[2])] {
                        return flush_copied_slots(*managed, slots, boot_id);
                      });
}

}  // namespace microvm
