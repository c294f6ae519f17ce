// Which file a descriptor or a path names, and in which state: statx.
#pragma once

#include <cstdint>
#include <string_view>

#include "system/error.h"

namespace microvm {

// Nanoseconds since the epoch. 64 bits end in 2262, and file systems hold later times.
__extension__ typedef __int128 TimeNs;

struct Identity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  TimeNs mtime_ns = 0;
  TimeNs ctime_ns = 0;
  // As the kernel reports it. It differs for a file that this process has linked: own_links.h.
  TimeNs real_ctime_ns = 0;
  uint64_t links = 0;
  // The mount that the file was reached by, with a number that is given only once between two boots. The numbers of
  // devices and inodes are given again. 0: not known (Linux before 6.8).
  uint64_t mount = 0;

  // Same file with the same contents. Making or removing a hardlink changes ctime and nothing else, so ctime counts
  // only while the file has one link on both occasions.
  bool same_state(const Identity& other) const {
    return same_file(other) && mount == other.mount && size == other.size && mtime_ns == other.mtime_ns &&
           (links != 1 || other.links != 1 || ctime_ns == other.ctime_ns);
  }
  // Whoever writes to a file can put mtime back, but not ctime. (Links of this process do not count: own_links.h.)
  bool unchanged(const Identity& other) const { return same_state(other) && ctime_ns == other.ctime_ns; }
  bool same_file(const Identity& other) const { return device == other.device && inode == other.inode; }
  // For files that were not open all the while: ext4 gives the inode of a file that is gone to the next one that is
  // made, so after two grows of an image the number alone would be the same again.
  bool same_image(const Identity& other) const { return same_file(other) && size == other.size; }
  bool identical(const Identity& other) const {
    return same_file(other) && size == other.size && mtime_ns == other.mtime_ns && ctime_ns == other.ctime_ns &&
           links == other.links;
  }
};

struct FileInfo {
  Identity identity;
  uint32_t mode = 0;  // type and permissions
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t blocks = 0;        // of 512 bytes
  uint32_t device_major = 0;  // of what a device file stands for
  uint32_t device_minor = 0;
  bool mount_root = false;    // something is mounted here
  bool knows_mounts = false;  // else nothing is known of that: Linux before 5.8

  bool is_regular() const;
  bool is_folder() const;
};

// The file behind an open descriptor. Of a file that this process has linked, the ctime is that of before: own_links.h.
Error stat_fd(int fd, std::string_view path, FileInfo* info);

// The same with the ctime that the kernel reports.
Error stat_real_ctime(int fd, FileInfo* info);

enum class Follow { kNo, kYes };

// The file at `name` in the folder `folder_fd`; `path` is for the error alone.
Error stat_at(int folder_fd, const char* name, Follow follow, std::string_view path, FileInfo* info);

}  // namespace microvm
