#include "system/lease.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>

#include "system/error.h"

namespace microvm {
namespace {

Openness try_lease(int fd, int kind) {
  // Whoever opens the file in the instant that the lease lives makes the kernel send a signal. The default one, SIGIO,
  // would end the process; SIGURG is ignored unless somebody asks for it.
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
  // Another process of this library that merely looks at the image has it open for microseconds.
  Openness openness = try_lease(fd, F_WRLCK);
  for (int again = 0; again < 3 && openness == Openness::kOpen; again++) {
    struct timespec pause = {0, 1'000'000};
    nanosleep(&pause, nullptr);
    openness = try_lease(fd, F_WRLCK);
  }
  return openness;
}

}  // namespace microvm
