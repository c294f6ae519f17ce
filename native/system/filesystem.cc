#include "system/filesystem.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <cstring>

#include "system/fd.h"
#include "system/file.h"

namespace microvm {
namespace {

// Types that statfs(2) reports.
constexpr uint32_t kExt = 0xEF53;
constexpr uint32_t kXfs = 0x58465342;
constexpr uint32_t kBtrfs = 0x9123683E;
constexpr uint32_t kF2fs = 0xF2F52010;
constexpr uint32_t kBcachefs = 0xCA451A4E;

constexpr uint64_t kFirstFreeObject = 256;  // BTRFS_FIRST_FREE_OBJECTID

// FS_IOC_GETFSUUID of Linux 6.9, of any file system.
struct FsUuid {
  uint8_t length;
  uint8_t uuid[16];
};
constexpr unsigned long kGetFsUuid = _IOR(0x15, 0, FsUuid);

// EXT4_IOC_GETFSUUID of Linux 6.0.
struct Ext4Uuid {
  uint32_t length;
  uint32_t flags;
  uint8_t uuid[16];
};
constexpr unsigned long kExt4GetFsUuid = _IOR('f', 44, uint32_t[2]);

// XFS_IOC_FSGEOMETRY_V1.
struct XfsGeometry {
  uint32_t before[8];
  uint64_t blocks[4];
  uint8_t uuid[16];
  uint32_t after[8];
};
constexpr unsigned long kXfsGeometry = _IOR('X', 100, uint8_t[112]);
static_assert(sizeof(XfsGeometry) == 112, "as the kernel has it");

const char* name_of(uint32_t type) {
  switch (type) {
    case kExt:
      return "ext:";
    case kXfs:
      return "xfs:";
    case kBtrfs:
      return "btrfs:";
    case kF2fs:
      return "f2fs:";
    case kBcachefs:
      return "bcachefs:";
    default:
      return nullptr;
  }
}

void add_hex(const uint8_t* bytes, size_t count, std::string* text) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (size_t i = 0; i < count; i++) {
    text->push_back(kDigits[bytes[i] >> 4]);
    text->push_back(kDigits[bytes[i] & 15]);
  }
}

bool is_zero(const uint8_t* bytes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

bool uuid_of(int fd, uint32_t type, uint8_t* uuid) {
  FsUuid any = {};
  if (retry_eintr([&] { return ioctl(fd, kGetFsUuid, &any); }) == 0 && any.length == sizeof any.uuid) {
    std::memcpy(uuid, any.uuid, sizeof any.uuid);
    return true;
  }
  if (type == kXfs) {
    XfsGeometry geometry = {};
    if (retry_eintr([&] { return ioctl(fd, kXfsGeometry, &geometry); }) != 0) return false;
    std::memcpy(uuid, geometry.uuid, sizeof geometry.uuid);
    return true;
  }
  if (type == kBtrfs) {
    struct btrfs_ioctl_fs_info_args info = {};
    if (retry_eintr([&] { return ioctl(fd, BTRFS_IOC_FS_INFO, &info); }) != 0) return false;
    std::memcpy(uuid, info.fsid, 16);
    return true;
  }
  if (type == kExt) {
    Ext4Uuid ext = {};
    ext.length = sizeof ext.uuid;
    if (retry_eintr([&] { return ioctl(fd, kExt4GetFsUuid, &ext); }) != 0) return false;
    std::memcpy(uuid, ext.uuid, sizeof ext.uuid);
    return true;
  }
  return false;
}

// Which subvolume the file is in.
bool subvolume_of(int fd, uint64_t* id) {
  struct btrfs_ioctl_ino_lookup_args lookup = {};
  lookup.objectid = kFirstFreeObject;
  if (retry_eintr([&] { return ioctl(fd, BTRFS_IOC_INO_LOOKUP, &lookup); }) != 0) return false;
  *id = lookup.treeid;
  return true;
}

}  // namespace

std::string filesystem_id(int fd) {
  struct statfs info = {};
  if (retry_eintr([&] { return fstatfs(fd, &info); }) != 0) return "";
  const auto type = static_cast<uint32_t>(info.f_type);
  if (name_of(type) == nullptr) return "";
  uint8_t uuid[16];
  if (!uuid_of(fd, type, uuid) || is_zero(uuid, sizeof uuid)) return "";
  std::string text = name_of(type);
  add_hex(uuid, sizeof uuid, &text);
  if (type != kBtrfs) return text;
  uint64_t subvolume = 0;
  if (!subvolume_of(fd, &subvolume)) return "";
  uint8_t bytes[8];
  for (int i = 0; i < 8; i++) bytes[i] = static_cast<uint8_t>(subvolume >> (56 - 8 * i));
  text.push_back('-');
  add_hex(bytes, sizeof bytes, &text);
  return text;
}

std::string filesystem_id_of_path(const std::string& path, const Identity& expected) {
  Fd fd;
  FileInfo info;
  const size_t slash = path.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const auto is_expected_place = [&] {
    return stat_fd(fd.get(), path, &info).ok() && info.identity.device == expected.device &&
           info.identity.mount == expected.mount;
  };
  // A file can be a mount point itself, or a symbolic link to one elsewhere.
  if (open_folder(folder, &fd).ok() && is_expected_place()) return filesystem_id(fd.get());
  if (open_unwaiting(AT_FDCWD, path.c_str(), Follow::kYes, path, &fd).ok() && is_expected_place())
    return filesystem_id(fd.get());
  return "";
}

}  // namespace microvm
