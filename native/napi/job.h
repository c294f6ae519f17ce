// Asynchronous work: a task runs on a thread of Node's pool, then settles a promise on the thread it came from.
//
// A task is a class with
//   Error run();                          no JavaScript here
//   Napi::Value result(Napi::Env env);    after a run that succeeded
// It owns copies of all its inputs.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "napi/js.h"
#include "system/error.h"

namespace microvm {

// Any task, so that the code that runs it is compiled once rather than for each.
class AnyTask {
 public:
  AnyTask() = default;
  AnyTask(const AnyTask&) = delete;
  AnyTask& operator=(const AnyTask&) = delete;
  virtual ~AnyTask() = default;
  virtual Error run() = 0;
  virtual Napi::Value result(Napi::Env env) = 0;
};

// Returns the promise, or throws if Node cannot take the work.
Napi::Value start_task(Napi::Env env, const char* name, std::unique_ptr<AnyTask> task);

template <class Task>
class Job {
 public:
  static Napi::Value start(Napi::Env env, const char* name, Task task) {
    return start_task(env, name, std::make_unique<Holder>(std::move(task)));
  }

 private:
  class Holder final : public AnyTask {
   public:
    explicit Holder(Task task) : task_(std::move(task)) {}
    Error run() override { return task_.run(); }
    Napi::Value result(Napi::Env env) override { return task_.result(env); }

   private:
    Task task_;
  };
};

// Work whose only result is whether it failed.
template <class Work>
class SilentTask {
 public:
  explicit SilentTask(Work work) : work_(std::move(work)) {}
  Error run() { return work_(); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }

 private:
  Work work_;
};

template <class Work>
Napi::Value start_silent(Napi::Env env, const char* name, Work work) {
  return Job<SilentTask<Work>>::start(env, name, SilentTask<Work>(std::move(work)));
}

// Work that answers one question.
template <class Work>
class YesOrNoTask {
 public:
  explicit YesOrNoTask(Work work) : work_(std::move(work)) {}
  Error run() { return work_(&answer_); }
  Napi::Value result(Napi::Env env) { return Napi::Boolean::New(env, answer_); }

 private:
  Work work_;
  bool answer_ = false;
};

template <class Work>
Napi::Value start_yes_or_no(Napi::Env env, const char* name, Work work) {
  return Job<YesOrNoTask<Work>>::start(env, name, YesOrNoTask<Work>(std::move(work)));
}

}  // namespace microvm
