// Disk work of one thread at the lowest priority, for as long as an object of this class lives.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

namespace microvm {

class IdleIo {
 public:
  explicit IdleIo(bool idle) : idle_(idle) {
    if (!idle_) return;
    before_ = static_cast<int>(syscall(SYS_ioprio_get, kProcess, 0));
    // Where that is refused, the work is done at the usual priority.
    idle_ = before_ >= 0 && syscall(SYS_ioprio_set, kProcess, 0, kIdle) == 0;
  }
  ~IdleIo() {
    if (idle_) (void)syscall(SYS_ioprio_set, kProcess, 0, before_);
  }
  IdleIo(const IdleIo&) = delete;
  IdleIo& operator=(const IdleIo&) = delete;

 private:
  // From linux/ioprio.h, which came to user space with Linux 5.15. With 0 for its id, the "process" is the calling
  // thread.
  static constexpr int kProcess = 1;
  static constexpr int kIdle = 3 << 13;

  bool idle_;
  int before_ = 0;
};

}  // namespace microvm
