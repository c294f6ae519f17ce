#include "job.h"

namespace microvm {
namespace {

struct Pending {
  std::unique_ptr<AnyTask> task;
  Napi::Promise::Deferred deferred;
  Error error;
  napi_async_work work = nullptr;
};

void execute(napi_env, void* data) {
  auto* pending = static_cast<Pending*>(data);
  pending->error = pending->task->run();
}

bool can_run_javascript(napi_env env) {
  napi_value object = nullptr;
  napi_value key = nullptr;
  return napi_create_object(env, &object) == napi_ok && napi_get_undefined(env, &key) == napi_ok &&
         napi_set_property(env, object, key, key) == napi_ok;
}

void complete(napi_env raw_env, napi_status status, void* data) {
  std::unique_ptr<Pending> pending(static_cast<Pending*>(data));
  Napi::Env env(raw_env);
  Napi::HandleScope scope(env);
  napi_delete_async_work(env, pending->work);
  // Cancelled, or a worker that is being terminated: nobody waits for the promise, and JavaScript can no longer run.
  if (status != napi_ok || !can_run_javascript(env)) return;
  if (pending->error.ok()) {
    Napi::Value result = pending->task->result(env);
    if (!env.IsExceptionPending()) pending->deferred.Resolve(result);
  } else {
    pending->deferred.Reject(to_js(env, pending->error));
  }
}

}  // namespace

Napi::Value start_task(Napi::Env env, const char* name, std::unique_ptr<AnyTask> task) {
  auto pending = std::unique_ptr<Pending>(new Pending{std::move(task), Napi::Promise::Deferred::New(env), {}, nullptr});
  Napi::Promise promise = pending->deferred.Promise();
  napi_value resource_name = Napi::String::New(env, name);
  napi_status status =
      napi_create_async_work(env, nullptr, resource_name, execute, complete, pending.get(), &pending->work);
  if (status == napi_ok) status = napi_queue_async_work(env, pending->work);
  if (status != napi_ok) {
    if (pending->work != nullptr) napi_delete_async_work(env, pending->work);
    Napi::Error::New(env, "cannot queue asynchronous work").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  (void)pending.release();  // complete() takes it back
  return promise;
}

}  // namespace microvm
