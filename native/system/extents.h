// How a file lies on disk: FIEMAP.
#pragma once

#include <cstdint>
#include <string_view>

#include "system/error.h"

namespace microvm {

// EOPNOTSUPP whatever keeps FIEMAP from answering: tmpfs, FUSE and NFS have none, a sandbox can refuse it with any
// errno, and no caller needs the answer.
Error count_extents(int fd, std::string_view path, uint64_t* count);

// Whether one of the first extents is shared with another file. False where FIEMAP is missing: there is no reflink
// there.
bool shares_extents(int fd);

struct Extent {
  uint64_t logical = 0;
  uint64_t physical = 0;
  uint64_t length = 0;
  bool shared = false;
  bool located = false;  // it has a place of its own on disk: not so what is not written yet, or lies in the inode
};

struct Extents {
  static constexpr uint32_t kLimit = 64;
  Extent list[kLimit];
  uint32_t count = 0;
  bool last = false;  // the file has no more
};

// Those that end after `position`, as many as fit. EOPNOTSUPP as above, but for a fault of the disk (EIO).
Error next_extents(int fd, std::string_view path, uint64_t position, Extents* extents);

}  // namespace microvm
