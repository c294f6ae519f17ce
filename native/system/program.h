// Programs run without a copy of this process: fork() copies the page tables of all its memory first, which takes
// 10 ms for every 250 MB.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "system/error.h"
#include "system/fd.h"

namespace microvm {

struct ProgramPlan {
  std::vector<std::string> args;  // the first is its path
  std::vector<std::string> environment;
  bool feeds = false;  // its input is a pipe rather than empty
  Fd output;           // where it writes instead of to a pipe
  bool own_group = false;
  bool dies_with_us = false;  // however this process ends
};

// Whoever starts a program reaps it: until then no other process has its id.
struct StartedProgram {
  int id = 0;
  // Our ends of its pipes, where there are any.
  Fd input;
  Fd output;
  Fd errors;
  Fd lifeline;  // the program is killed when it is closed
};

Error start_program(const ProgramPlan& plan, StartedProgram* program);

// Its status as wait() gives it, once it has ended. Does not wait.
Error reap_program(int id, std::optional<int>* status);

}  // namespace microvm
