#include "system/program.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system/pipe.h"

namespace microvm {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (const std::string& text : texts) list.push_back(const_cast<char*>(text.c_str()));
  list.push_back(nullptr);
  return list;
}

// What a program is to have as its descriptors 0, 1, 2 and perhaps 3. All others are closed when it starts.
class Redirections {
 public:
  Redirections() { error_ = posix_spawn_file_actions_init(&actions_); }
  Redirections(const Redirections&) = delete;
  Redirections& operator=(const Redirections&) = delete;
  ~Redirections() { (void)posix_spawn_file_actions_destroy(&actions_); }

  void duplicate(int from, int to) { note(posix_spawn_file_actions_adddup2(&actions_, from, to)); }

  int error() const { return error_; }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  void note(int error) {
    if (error_ == 0) error_ = error;
  }

  posix_spawn_file_actions_t actions_;
  int error_ = 0;
};

// Node ignores SIGPIPE, and the threads of its pool block all signals. A program would inherit both.
class Attributes {
 public:
  explicit Attributes(bool own_group) {
    (void)posix_spawnattr_init(&attributes_);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    sigset_t signals;
    sigemptyset(&signals);
    (void)posix_spawnattr_setsigmask(&attributes_, &signals);
    sigfillset(&signals);
    (void)posix_spawnattr_setsigdefault(&attributes_, &signals);
    if (own_group) {
      flags |= POSIX_SPAWN_SETPGROUP;
      (void)posix_spawnattr_setpgroup(&attributes_, 0);
    }
    (void)posix_spawnattr_setflags(&attributes_, flags);
  }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;
  ~Attributes() { (void)posix_spawnattr_destroy(&attributes_); }

  const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
};

// The read end of a pipe that nobody writes to. The kernel signals whoever owns it when the write end is closed.
// (PR_SET_PDEATHSIG kills a program when the thread that started it ends, which a runtime may do with idle ones.)
constexpr int kLifeline = 3;

void kill_at_hangup(const Fd& read_end, pid_t id) {
  (void)fcntl(read_end.get(), F_SETOWN, id);
  (void)fcntl(read_end.get(), F_SETSIG, SIGKILL);
  (void)fcntl(read_end.get(), F_SETFL, O_ASYNC);
}

}  // namespace

Error start_program(const ProgramPlan& plan, StartedProgram* program) {
  const std::string& path = plan.args.front();
  Redirections redirections;
  Fd input;
  Fd output;
  Fd errors;
  Fd lifeline;
  Error error = open_pipe(&input, &program->input);
  if (error.ok() && !plan.output) error = open_pipe(&program->output, &output);
  if (error.ok()) error = open_pipe(&program->errors, &errors);
  if (error.ok() && plan.dies_with_us) error = open_pipe(&lifeline, &program->lifeline);
  if (!error.ok()) return error;
  // A pipe that nobody writes to serves as empty input: a jail may lack /dev/null.
  if (!plan.feeds) program->input.reset();
  redirections.duplicate(input.get(), STDIN_FILENO);
  redirections.duplicate(plan.output ? plan.output.get() : output.get(), STDOUT_FILENO);
  redirections.duplicate(errors.get(), STDERR_FILENO);
  if (lifeline) redirections.duplicate(lifeline.get(), kLifeline);

  pid_t id = 0;
  int code = redirections.error();
  // With the p a script that does not name its interpreter is run by the shell, as by execvp().
  if (code == 0)
    code = posix_spawnp(&id, path.c_str(), redirections.get(), Attributes(plan.own_group).get(),
                        pointers(plan.args).data(), pointers(plan.environment).data());
  if (code != 0) return Error::of(code, "spawn", path);
  if (lifeline) kill_at_hangup(lifeline, id);
  program->id = id;
  return {};
}

Error reap_program(int id, std::optional<int>* status) {
  int wait_status = 0;
  const pid_t reaped = retry_eintr([&] { return waitpid(id, &wait_status, WNOHANG); });
  if (reaped < 0) return Error::last("waitpid", {});
  if (reaped == id) *status = wait_status;
  return {};
}

}  // namespace microvm
