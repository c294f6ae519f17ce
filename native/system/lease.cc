#include "system/lease.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "system/identity.h"

namespace microvm {
namespace {

void rest() {
  struct timespec pause = {0, 1'000'000};
  nanosleep(&pause, nullptr);
}

// This thread as another user for the file system, which CAP_SETUID allows: setfsuid(2). The kernel then takes the
// whole process for one that must not be dumped (PR_SET_DUMPABLE in prctl(2)), so that is put back too. One thread at a
// time: another would put back what it found in between.
class AsUser {
 public:
  explicit AsUser(uint32_t uid) {
    while (busy_.exchange(true)) rest();
    dumpable_ = syscall(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0) == 1;
    before_ = syscall(SYS_setfsuid, uid);
    became_ = syscall(SYS_setfsuid, kNoUser) == static_cast<long>(uid);
  }
  ~AsUser() {
    if (became_) (void)syscall(SYS_setfsuid, before_);
    if (became_ && dumpable_) (void)syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
    busy_ = false;
  }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;
  bool became() const { return became_; }

 private:
  static constexpr long kNoUser = -1;  // changes nothing; setfsuid() says who the user is and never that it failed
  static std::atomic<bool> busy_;
  bool dumpable_ = false;
  bool became_ = false;
  long before_ = 0;
};

std::atomic<bool> AsUser::busy_{false};

Openness try_once(int fd, int kind) {
  // If somebody opens the file while the lease exists, the kernel sends a signal. SIGIO, the default, would end the
  // process; SIGURG is ignored by default.
  if (fcntl(fd, F_SETSIG, SIGURG) < 0) return Openness::kUnknown;
  if (retry_eintr([&] { return fcntl(fd, F_SETLEASE, kind); }) < 0) {
    return errno == EAGAIN ? Openness::kOpen : errno == EACCES ? Openness::kForbidden : Openness::kUnknown;
  }
  fcntl(fd, F_SETLEASE, F_UNLCK);
  return Openness::kFree;
}

// Only a file's owner may take a lease on it, or whoever has CAP_LEASE, which containers withhold from their root.
Openness try_lease(int fd, int kind) {
  const Openness openness = try_once(fd, kind);
  FileInfo file;
  if (openness != Openness::kForbidden || !stat_fd(fd, "", &file).ok()) return openness;
  const AsUser owner(file.uid);
  return owner.became() ? try_once(fd, kind) : openness;
}

}  // namespace

Openness open_for_writing(int fd) { return try_lease(fd, F_RDLCK); }

Openness open_elsewhere(int fd) {
  // Another process that only looks at the image, like this one, has it open for microseconds.
  Openness openness = try_lease(fd, F_WRLCK);
  for (int again = 0; again < 3 && openness == Openness::kOpen; again++) {
    rest();
    openness = try_lease(fd, F_WRLCK);
  }
  return openness;
}

Error require_known(Openness openness, std::string_view path) {
  return openness == Openness::kForbidden ? Error::of(EACCES, "fcntl(F_SETLEASE)", path) : Error();
}

}  // namespace microvm
