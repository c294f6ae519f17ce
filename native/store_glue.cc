#include "store_glue.h"

#include <fcntl.h>

#include <string>
#include <utility>
#include <vector>

#include "dress.h"
#include "file.h"
#include "job.h"
#include "kinds.h"
#include "release.h"
#include "slot_js.h"
#include "slot_state.h"
#include "store.h"

namespace microvm {
namespace {

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

class ReadSmallFile {
 public:
  ReadSmallFile(std::string path, uint64_t limit) : path_(std::move(path)), limit_(limit) {}
  Error run() { return read_small_file(AT_FDCWD, path_.c_str(), path_, &file_, limit_); }
  Napi::Value result(Napi::Env env) { return to_js(env, file_); }

 private:
  std::string path_;
  uint64_t limit_;
  SmallFile file_;
};

// Undefined while it is not known.
Napi::Value to_js(Napi::Env env, Reflinks reflinks) {
  if (reflinks == Reflinks::kUnknown) return env.Undefined();
  return Napi::Boolean::New(env, reflinks == Reflinks::kYes);
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
    object.Set("reflinks", to_js(env, reflinks_));
    return object;
  }

 private:
  std::string path_;
  Ref<Store> store_;
  Reflinks reflinks_ = Reflinks::kUnknown;
};

class ProbeReflink {
 public:
  explicit ProbeReflink(Ref<Store> store) : store_(std::move(store)) {}
  Error run() { return store_->probe_reflink(&reflinks_); }
  Napi::Value result(Napi::Env env) { return to_js(env, reflinks_); }

 private:
  Ref<Store> store_;
  Reflinks reflinks_ = Reflinks::kUnknown;
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
    object.Set("held", report_.held);
    return object;
  }

 private:
  Ref<Store> store_;
  uint64_t budget_;
  SweepReport report_;
};

// Many in one trip, each with its state or its error.
class InspectSlots {
 public:
  InspectSlots(Ref<Store> store, std::vector<std::string> slots, Look look = Look::kAll)
      : store_(std::move(store)), slots_(std::move(slots)), look_(look) {}

  Error run() {
    Error error = store_->check_current();
    if (!error.ok()) return error;
    states_.resize(slots_.size());
    for (size_t i = 0; i < slots_.size(); i++) errors_.push_back(read_slot(*store_, slots_[i], look_, &states_[i]));
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
  Ref<Store> store_;
  std::vector<std::string> slots_;
  Look look_;
  std::vector<SlotState> states_;
  std::vector<Error> errors_;
};

// The same as a table of numbers and one of texts: making objects would take longer than reading the slots.
class SurveySlots final : public InspectSlots {
 public:
  SurveySlots(Ref<Store> store, std::vector<std::string> slots)
      : InspectSlots(std::move(store), std::move(slots), Look::kStamps) {}

  Napi::Value result(Napi::Env env) {
    constexpr size_t kNumbers = 4;
    constexpr uint32_t kTexts = 5;
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
      const SmallFile* const files[kTexts] = {&state.stamp, &state.size_stamp, &state.new_size_stamp, &state.raw_id,
                                              &state.stack};
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

Napi::Value read_small_file(const Napi::CallbackInfo& info) {
  return Job<ReadSmallFile>::start(info.Env(), "microvm:readSmallFile",
                                   ReadSmallFile(to_string(info[0]), to_size(info[1])));
}

Napi::Value open_store(const Napi::CallbackInfo& info) {
  return Job<OpenStore>::start(info.Env(), "microvm:openStore", OpenStore(to_string(info[0])));
}

Napi::Value probe_reflink(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<ProbeReflink>::start(info.Env(), "microvm:probeReflink", ProbeReflink(std::move(store)));
}

Napi::Value sweep_store(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<SweepStore>::start(info.Env(), "microvm:sweep", SweepStore(std::move(store), to_size(info[1])));
}

Napi::Value inspect_slots(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<InspectSlots>::start(info.Env(), "microvm:inspectSlots",
                                  InspectSlots(std::move(store), to_strings(info[1])));
}

Napi::Value survey_slots(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return Job<SurveySlots>::start(info.Env(), "microvm:surveySlots", SurveySlots(std::move(store), to_strings(info[1])));
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
  return Job<ReleaseSlot>::start(info.Env(), "microvm:releaseSlot", ReleaseSlot(std::move(store), std::move(request)));
}

Napi::Value leave_store(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return start_silent(info.Env(), "microvm:leaveStore", [store] { return store->leave(); });
}

Napi::Value dress_slot(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  const Identity expected = to_identity(info[2].As<Napi::Object>());
  const Dress dress = to_dress(info[3].As<Napi::Object>());
  return start_silent(info.Env(), "microvm:dressSlot", [store, slot = to_string(info[1]), expected, dress] {
    return dress_slot(*store, slot, expected, dress);
  });
}

Napi::Value flush_slot(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  return start_silent(info.Env(), "microvm:flushSlot",
                      [store, slot = to_string(info[1])] { return flush_slot(*store, slot); });
}

Napi::Value discard_folder(const Napi::CallbackInfo& info) {
  Ref<Store> store = unwrap<Store>(info[0]);
  if (!store) return {};
  const Place place = to_place(info[1]);
  return start_silent(info.Env(), "microvm:discardFolder",
                      [store, place, name = to_string(info[2])] { return discard_folder(*store, place, name); });
}

}  // namespace microvm
