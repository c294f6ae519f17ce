#include "system/reflink.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

namespace microvm {
namespace {

int clone_whole(int from_fd, int to_fd, uint64_t size) {
  if (retry_eintr([&] { return ioctl(to_fd, FICLONE, from_fd); }) == 0) return 0;
  if (errno != ENOTTY && errno != EINVAL) return -1;
  // Some file systems know the ranged form alone.
  int first_errno = errno;
  struct file_clone_range range = {};
  range.src_fd = from_fd;
  range.src_length = size;
  if (retry_eintr([&] { return ioctl(to_fd, FICLONERANGE, &range); }) == 0) return 0;
  errno = first_errno;
  return -1;
}

// btrfs refuses to share blocks between a file with NOCOW and one without (EINVAL), and lets the flag be changed only
// while a file is empty. True if the destination now has the source's flag and had not before.
bool adopt_nocow(int from_fd, int to_fd) {
  int from_flags = 0;
  int to_flags = 0;
  if (ioctl(from_fd, FS_IOC_GETFLAGS, &from_flags) < 0 || ioctl(to_fd, FS_IOC_GETFLAGS, &to_flags) < 0) return false;
  if (((from_flags ^ to_flags) & FS_NOCOW_FL) == 0) return false;
  to_flags ^= FS_NOCOW_FL;
  return ioctl(to_fd, FS_IOC_SETFLAGS, &to_flags) == 0;
}

constexpr uint32_t kZfs = 0x2FC12FC1;  // of statfs(2)

bool is_on_zfs(int fd) {
  struct statfs info = {};
  return retry_eintr([&] { return fstatfs(fd, &info); }) == 0 && static_cast<uint32_t>(info.f_type) == kZfs;
}

// ZFS shares no blocks that no transaction group has written yet, as long as zfs_bclone_wait_dirty is 0: EAGAIN. If it
// has shared those before them, the kernel makes EINVAL of the short result. Few other things are EINVAL there.
bool is_unwritten(int code, int fd) { return code == EAGAIN || (code == EINVAL && is_on_zfs(fd)); }

// ZFS writes a group every 5 s. Asked for the holes of a file with unwritten blocks, it writes the group at once and
// waits for it (zfs_dmu_offset_next_sync, on by default). fsync does not help: it writes to the log alone.
//
// A file counts as written some time before its group does, and then that question is answered at once: hence the
// pauses. A guest may also write on and on: hence few tries.
bool clone_when_written(int from_fd, int to_fd, uint64_t size, int code) {
  constexpr long kPausesNs[] = {0, 20'000'000, 80'000'000, 320'000'000};
  for (const long pause_ns : kPausesNs) {
    if (!is_unwritten(code, from_fd)) return false;
    const struct timespec pause = {0, pause_ns};
    if (pause_ns > 0) nanosleep(&pause, nullptr);
    lseek(from_fd, 0, SEEK_HOLE);
    if (clone_whole(from_fd, to_fd, size) == 0) return true;
    code = errno;
  }
  return false;
}

}  // namespace

Error reflink(int from_fd, int to_fd, uint64_t size, std::string_view path, std::string_view dest) {
  if (clone_whole(from_fd, to_fd, size) == 0) return {};
  Error error = Error::last("ioctl(FICLONE)", path, dest);
  if (clone_when_written(from_fd, to_fd, size, error.code)) return {};
  if (error.is(EINVAL) && adopt_nocow(from_fd, to_fd) && clone_whole(from_fd, to_fd, size) == 0) return {};
  return error;
}

}  // namespace microvm
