#include "system/pipe.h"

#include <fcntl.h>
#include <unistd.h>

namespace microvm {
namespace {

// As much as anybody may have: fewer turns between writer and reader.
constexpr int kCapacity = 1024 * 1024;

}  // namespace

Error Pipe::open(Ref<Pipe>* pipe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Error::last("pipe2", {});
  *pipe = Ref<Pipe>(new Pipe);
  (*pipe)->read_end_.reset(ends[0]);
  (*pipe)->write_end_.reset(ends[1]);
  (void)fcntl(ends[1], F_SETPIPE_SZ, kCapacity);
  return {};
}

}  // namespace microvm
