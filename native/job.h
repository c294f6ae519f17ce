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

#include "error.h"
#include "js.h"

namespace microvm {

template <class Task>
class Job {
 public:
  // Returns the promise, or throws if Node cannot take the work.
  static Napi::Value start(Napi::Env env, const char* name, Task task) {
    auto job = std::unique_ptr<Job>(new Job(env, std::move(task)));
    Napi::Promise promise = job->deferred_.Promise();
    napi_value resource_name = Napi::String::New(env, name);
    const bool made =
        napi_create_async_work(env, nullptr, resource_name, execute, complete, job.get(), &job->work_) == napi_ok;
    if (!made || napi_queue_async_work(env, job->work_) != napi_ok) {
      if (made) napi_delete_async_work(env, job->work_);
      Napi::Error::New(env, "cannot queue asynchronous work").ThrowAsJavaScriptException();
      return env.Undefined();
    }
    (void)job.release();  // complete() takes it back
    return promise;
  }

 private:
  Job(Napi::Env env, Task task) : task_(std::move(task)), deferred_(Napi::Promise::Deferred::New(env)) {}

  static void execute(napi_env, void* data) {
    Job* job = static_cast<Job*>(data);
    job->error_ = job->task_.run();
  }

  static void complete(napi_env raw_env, napi_status status, void* data) {
    std::unique_ptr<Job> job(static_cast<Job*>(data));
    Napi::Env env(raw_env);
    Napi::HandleScope scope(env);
    napi_delete_async_work(env, job->work_);
    // Cancelled, or a worker that is being terminated: nobody waits for the promise, and JavaScript can no longer run.
    if (status != napi_ok || !can_run_javascript(env)) return;
    if (job->error_.ok()) {
      Napi::Value result = job->task_.result(env);
      if (!env.IsExceptionPending()) job->deferred_.Resolve(result);
    } else {
      job->deferred_.Reject(to_js(env, job->error_));
    }
  }

  static bool can_run_javascript(napi_env env) {
    napi_value object = nullptr;
    napi_value key = nullptr;
    return napi_create_object(env, &object) == napi_ok && napi_get_undefined(env, &key) == napi_ok &&
           napi_set_property(env, object, key, key) == napi_ok;
  }

  Task task_;
  Error error_;
  Napi::Promise::Deferred deferred_;
  napi_async_work work_ = nullptr;
};

// Work that has nothing to tell but whether it failed.
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

// A task on the calling thread: its result, or an error thrown.
template <class Task>
Napi::Value run_here(Napi::Env env, Task task) {
  Error error = task.run();
  if (error.ok()) return task.result(env);
  napi_throw(env, to_js(env, error));
  return {};
}

}  // namespace microvm
