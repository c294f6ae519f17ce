#include "system/project.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "system/file.h"
#include "system/tree.h"

namespace microvm {
namespace {

bool attributes_of(int fd, struct fsxattr* attributes) {
  return retry_eintr([&] { return ioctl(fd, FS_IOC_FSGETXATTR, attributes); }) == 0;
}

bool set_project(int fd, const struct fsxattr& from, bool is_folder) {
  struct fsxattr attributes = {};
  if (!attributes_of(fd, &attributes) || attributes.fsx_projid == from.fsx_projid) return false;
  attributes.fsx_projid = from.fsx_projid;
  if (is_folder) attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
  return retry_eintr([&] { return ioctl(fd, FS_IOC_FSSETXATTR, &attributes); }) == 0;
}

}  // namespace

bool adopt_project(int from_fd, const char* name, int to_fd) {
  struct fsxattr to = {};
  if (!attributes_of(to_fd, &to) || (to.fsx_xflags & FS_XFLAG_PROJINHERIT) == 0) return false;
  Fd fd;
  if (!open_file_at(from_fd, name, name, &fd).ok()) return false;
  FileInfo info;
  if (!stat_fd(fd.get(), name, &info).ok()) return false;
  if (info.is_regular()) return set_project(fd.get(), to, false);
  FolderReader reader(fd.get(), name);
  while (const char* file = reader.next()) {
    Fd inner;
    FileInfo kind;
    const bool regular =
        open_file_at(fd.get(), file, file, &inner).ok() && stat_fd(inner.get(), file, &kind).ok() && kind.is_regular();
    // A file with other names may be a template. The rename needs the folder's project only.
    if (regular && kind.identity.links == 1) (void)set_project(inner.get(), to, false);
  }
  return set_project(fd.get(), to, true);
}

}  // namespace microvm
