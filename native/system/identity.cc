#include "system/identity.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "system/own_links.h"

namespace microvm {
namespace {

TimeNs nanoseconds(const struct statx_timestamp& time) {
  return static_cast<TimeNs>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

constexpr unsigned kUniqueMount = 0x4000;  // STATX_MNT_ID_UNIQUE, which older headers lack

// stx_mnt_id, which follows the device's number.
uint64_t mount_of(const struct statx& info) {
  if ((info.stx_mask & kUniqueMount) == 0) return 0;
  uint64_t mount = 0;
  std::memcpy(&mount, reinterpret_cast<const char*>(&info) + offsetof(struct statx, stx_dev_minor) + 4, sizeof mount);
  return mount;
}

// Through syscall(): the C library's own stat family has other names before glibc 2.33.
Error call_statx(int fd, const char* name, int flags, std::string_view path, FileInfo* info) {
  struct statx out = {};
  constexpr unsigned kMask = STATX_BASIC_STATS | kUniqueMount;
  if (retry_eintr([&] { return syscall(SYS_statx, fd, name, flags, kMask, &out); }) < 0) {
    return Error::last("statx", path);
  }
  info->identity.device = (static_cast<uint64_t>(out.stx_dev_major) << 32) | out.stx_dev_minor;
  info->identity.inode = out.stx_ino;
  info->identity.size = out.stx_size;
  info->identity.mtime_ns = nanoseconds(out.stx_mtime);
  info->identity.ctime_ns = nanoseconds(out.stx_ctime);
  info->identity.real_ctime_ns = info->identity.ctime_ns;
  info->identity.links = out.stx_nlink;
  info->identity.mount = mount_of(out);
  info->mode = out.stx_mode;
  info->uid = out.stx_uid;
  info->gid = out.stx_gid;
  info->blocks = out.stx_blocks;
  info->device_major = out.stx_rdev_major;
  info->device_minor = out.stx_rdev_minor;
  constexpr uint64_t kMountRoot = 0x2000;  // STATX_ATTR_MOUNT_ROOT, which older headers lack
  info->mount_root = (out.stx_attributes & kMountRoot) != 0;
  info->knows_mounts = (out.stx_attributes_mask & kMountRoot) != 0;
  return {};
}

// Waits for a link of ours that is being made or removed.
Error look(int fd, const char* name, int flags, std::string_view path, FileInfo* info) {
  Error error = call_statx(fd, name, flags, path, info);
  if (!error.ok()) return error;
  LinkAccount* account = find_link_account(info->identity);
  if (account == nullptr) return {};
  const LinkLock lock(account);
  error = call_statx(fd, name, flags, path, info);
  if (error.ok() && account->valid && info->identity.identical(account->now)) {
    info->identity.ctime_ns = account->ctime_ns;
  }
  return error;
}

}  // namespace

bool FileInfo::is_regular() const { return S_ISREG(mode); }
bool FileInfo::is_folder() const { return S_ISDIR(mode); }

Error stat_fd(int fd, std::string_view path, FileInfo* info) { return look(fd, "", AT_EMPTY_PATH, path, info); }

Error stat_real_ctime(int fd, FileInfo* info) { return call_statx(fd, "", AT_EMPTY_PATH, {}, info); }

Error stat_at(int folder_fd, const char* name, Follow follow, std::string_view path, FileInfo* info) {
  return look(folder_fd, name, follow == Follow::kYes ? 0 : AT_SYMLINK_NOFOLLOW, path, info);
}

}  // namespace microvm
