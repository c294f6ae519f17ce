#include "system/rename.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "system/errno_policy.h"
#include "system/project.h"

namespace microvm {
namespace {

// RENAME_NOREPLACE and RENAME_EXCHANGE, which older C libraries do not define.
constexpr unsigned kNoReplace = 1;
constexpr unsigned kExchange = 2;

int try_rename(int from_fd, const char* from, int to_fd, const char* to, unsigned flags) {
  return static_cast<int>(retry_eintr([&]() -> long {
    // A sandbox may know the older call only.
    if (flags == 0) return renameat(from_fd, from, to_fd, to);
    return syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
  }));
}

int rename_in_project(int from_fd, const char* from, int to_fd, const char* to, unsigned flags) {
  const int result = try_rename(from_fd, from, to_fd, to, flags);
  if (result == 0 || errno != EXDEV) return result;
  if (adopt_project(from_fd, from, to_fd)) return try_rename(from_fd, from, to_fd, to, flags);
  errno = EXDEV;
  return result;
}

}  // namespace

Error rename_folder_to_free(int from_fd, const char* from, int to_fd, const char* to, std::string_view path,
                            std::string_view dest) {
  if (rename_in_project(from_fd, from, to_fd, to, kNoReplace) == 0) return {};
  if (errno == EEXIST) {
    // An empty folder is as good as none: a power cut on btrfs can leave one of a slot. rmdir takes nothing else.
    if (unlinkat(to_fd, to, AT_REMOVEDIR) < 0) return Error::of(EEXIST, "renameat2", path, dest);
    if (rename_in_project(from_fd, from, to_fd, to, kNoReplace) == 0) return {};
  }
  if (errno == EINVAL || is_refused(errno)) {
    // FUSE and NFS know no flags, and a sandbox may not. A folder renamed onto a folder that is not empty, or onto a
    // file, fails there too.
    if (rename_in_project(from_fd, from, to_fd, to, 0) == 0) return {};
    if (errno == ENOTEMPTY || errno == ENOTDIR) errno = EEXIST;
  }
  return Error::last("renameat2", path, dest);
}

Error rename_file_to_free(int from_fd, const char* from, int to_fd, const char* to, std::string_view path,
                          std::string_view dest) {
  if (rename_in_project(from_fd, from, to_fd, to, kNoReplace) == 0) return {};
  // Without the flag it would replace what is there.
  if (errno == EINVAL || is_refused(errno)) errno = EOPNOTSUPP;
  return Error::last("renameat2", path, dest);
}

Error rename_over(int from_fd, const char* from, int to_fd, const char* to, std::string_view path,
                  std::string_view dest) {
  if (rename_in_project(from_fd, from, to_fd, to, 0) == 0) return {};
  return Error::last("renameat", path, dest);
}

Error exchange(int from_fd, const char* from, int to_fd, const char* to, std::string_view path, std::string_view dest) {
  if (rename_in_project(from_fd, from, to_fd, to, kExchange) == 0) return {};
  if (is_refused(errno)) errno = ENOSYS;
  return Error::last("renameat2", path, dest);
}

}  // namespace microvm
