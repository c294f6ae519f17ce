#include "napi/job.h"

namespace microvm {
namespace {

struct Pending {
  std::unique_ptr<AnyTask> task;
  napi_deferred deferred = nullptr;
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
  // Cancelled, or a worker that is being terminated: the promise has no user any more, and JavaScript can no longer
  // run.
  if (status != napi_ok || !can_run_javascript(env)) return;
  // From here on it can be terminated at any moment: then calls fail, values are empty, and nobody waits either.
  if (pending->error.ok()) {
    Napi::Value result = pending->task->result(env);
    if (!result.IsEmpty()) (void)napi_resolve_deferred(env, pending->deferred, result);
  } else {
    Napi::Value error = to_js(env, pending->error);
    if (!error.IsEmpty()) (void)napi_reject_deferred(env, pending->deferred, error);
  }
}

}  // namespace

Napi::Value start_task(Napi::Env env, const char* name, std::unique_ptr<AnyTask> task) {
  auto pending = std::make_unique<Pending>();
  pending->task = std::move(task);
  napi_value promise = nullptr;
  // Fails where a worker is being terminated: then nobody waits for the work.
  if (napi_create_promise(env, &pending->deferred, &promise) != napi_ok) return {};
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
  return {env, promise};
}

}  // namespace microvm
