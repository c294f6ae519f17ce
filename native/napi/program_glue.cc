#include "napi/program_glue.h"

#include <optional>
#include <utility>

#include "napi/job.h"
#include "system/program.h"

namespace microvm {
namespace {

Napi::Value to_js(Napi::Env env, Fd fd) {
  if (!fd) return env.Undefined();
  return Napi::Number::New(env, fd.release());
}

class StartProgram {
 public:
  explicit StartProgram(ProgramPlan plan) : plan_(std::move(plan)) {}

  Error run() { return start_program(plan_, &program_); }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("id", program_.id);
    object.Set("stdin", to_js(env, std::move(program_.input)));
    object.Set("stdout", to_js(env, std::move(program_.output)));
    object.Set("stderr", to_js(env, std::move(program_.errors)));
    object.Set("lifeline", to_js(env, std::move(program_.lifeline)));
    return object;
  }

 private:
  ProgramPlan plan_;
  StartedProgram program_;
};

}  // namespace

Napi::Value start_program(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  ProgramPlan plan;
  plan.args = to_strings(info[0]);
  plan.environment = to_strings(info[1]);
  plan.feeds = to_bool(info[2]);
  plan.own_group = to_bool(info[3]);
  plan.dies_with_us = to_bool(info[4]);
  if (info[5].IsNumber() && !own_fd(env, info[5], plan.args.front(), &plan.output)) return {};
  return Job<StartProgram>::start(env, "microvm:startProgram", StartProgram(std::move(plan)));
}

Napi::Value reap_program(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::optional<int> status;
  Error error = reap_program(info[0].As<Napi::Number>().Int32Value(), &status);
  if (!error.ok()) {
    napi_throw(env, microvm::to_js(env, error));
    return {};
  }
  if (!status) return env.Undefined();
  return Napi::Number::New(env, *status);
}

}  // namespace microvm
