#include "system/lock.h"

#include <sys/file.h>

namespace microvm {
namespace {

Error call_flock(int fd, int operation, std::string_view path) {
  if (retry_eintr([&] { return flock(fd, operation); }) < 0) return Error::last("flock", path);
  return {};
}

}  // namespace

Error lock(int fd, std::string_view path) { return call_flock(fd, LOCK_EX, path); }
Error try_lock(int fd, std::string_view path) { return call_flock(fd, LOCK_EX | LOCK_NB, path); }

}  // namespace microvm
