#include "system/lease.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>

#include "system/error.h"

namespace microvm {
namespace {

Openness try_lease(int fd, int kind) {
  // If somebody opens the file while the lease exists, the kernel sends a signal. SIGIO, the default, would end the
  // process; SIGURG is ignored by default.
  if (fcntl(fd, F_SETSIG, SIGURG) < 0) return Openness::kUnknown;
  if (retry_eintr([&] { return fcntl(fd, F_SETLEASE, kind); }) < 0) {
    return errno == EAGAIN ? Openness::kOpen : Openness::kUnknown;
  }
  fcntl(fd, F_SETLEASE, F_UNLCK);
  return Openness::kFree;
}

}  // namespace

Openness open_for_writing(int fd) { return try_lease(fd, F_RDLCK); }

Openness open_elsewhere(int fd) {
  // Another process that only looks at the image, like this one, has it open for microseconds.
  Openness openness = try_lease(fd, F_WRLCK);
  for (int again = 0; again < 3 && openness == Openness::kOpen; again++) {
    struct timespec pause = {0, 1'000'000};
    nanosleep(&pause, nullptr);
    openness = try_lease(fd, F_WRLCK);
  }
  return openness;
}

}  // namespace microvm
