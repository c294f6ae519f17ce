#include "system/pipe.h"

#include <fcntl.h>
#include <unistd.h>

namespace microvm {
namespace {

// The most that any user may have: fewer switches between writer and reader.
constexpr int kCapacity = 1024 * 1024;

}  // namespace

Error open_pipe(Fd* read_end, Fd* write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Error::last("pipe2", {});
  read_end->reset(ends[0]);
  write_end->reset(ends[1]);
  return {};
}

Error Pipe::open(Ref<Pipe>* out) {
  Ref<Pipe> pipe(new Pipe);
  Error error = open_pipe(&pipe->read_end_, &pipe->write_end_);
  if (!error.ok()) return error;
  (void)fcntl(pipe->write_end(), F_SETPIPE_SZ, kCapacity);
  *out = pipe;
  return {};
}

}  // namespace microvm
