#include "system/reflink.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

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

}  // namespace

Error reflink(int from_fd, int to_fd, uint64_t size, std::string_view path, std::string_view dest) {
  if (clone_whole(from_fd, to_fd, size) == 0) return {};
  Error error = Error::last("ioctl(FICLONE)", path, dest);
  if (error.is(EINVAL) && adopt_nocow(from_fd, to_fd) && clone_whole(from_fd, to_fd, size) == 0) return {};
  return error;
}

}  // namespace microvm
