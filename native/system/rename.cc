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

int try_rename(const Entry& from, const Entry& to, unsigned flags) {
  return static_cast<int>(retry_eintr([&]() -> long {
    // A sandbox may know the older call only.
    if (flags == 0) return renameat(from.folder, from.name, to.folder, to.name);
    return syscall(SYS_renameat2, from.folder, from.name, to.folder, to.name, flags);
  }));
}

int rename_in_project(const Entry& from, const Entry& to, unsigned flags) {
  const int result = try_rename(from, to, flags);
  if (result == 0 || errno != EXDEV) return result;
  if (adopt_project(from.folder, from.name, to.folder)) return try_rename(from, to, flags);
  errno = EXDEV;
  return result;
}

}  // namespace

Error rename_folder_to_free(const Entry& from, const Entry& to) {
  if (rename_in_project(from, to, kNoReplace) == 0) return {};
  if (errno == EEXIST) {
    // An empty folder is as good as none: a power cut on btrfs can leave one of a slot. rmdir takes nothing else.
    if (unlinkat(to.folder, to.name, AT_REMOVEDIR) < 0) return Error::of(EEXIST, "renameat2", from.path, to.path);
    if (rename_in_project(from, to, kNoReplace) == 0) return {};
  }
  if (errno == EINVAL || is_refused(errno)) {
    // FUSE and NFS know no flags, and a sandbox may not. A folder renamed onto a folder that is not empty, or onto a
    // file, fails there too.
    if (rename_in_project(from, to, 0) == 0) return {};
    if (errno == ENOTEMPTY || errno == ENOTDIR) errno = EEXIST;
  }
  return Error::last("renameat2", from.path, to.path);
}

Error rename_file_to_free(const Entry& from, const Entry& to) {
  if (rename_in_project(from, to, kNoReplace) == 0) return {};
  // Without the flag it would replace what is there.
  if (errno == EINVAL || is_refused(errno)) errno = EOPNOTSUPP;
  return Error::last("renameat2", from.path, to.path);
}

Error rename_over(const Entry& from, const Entry& to) {
  if (rename_in_project(from, to, 0) == 0) return {};
  return Error::last("renameat", from.path, to.path);
}

Error exchange(const Entry& from, const Entry& to) {
  if (rename_in_project(from, to, kExchange) == 0) return {};
  if (is_refused(errno)) errno = ENOSYS;
  return Error::last("renameat2", from.path, to.path);
}

}  // namespace microvm
