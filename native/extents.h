// How a file lies on disk: FIEMAP.
#pragma once

#include <cstdint>
#include <string_view>

#include "error.h"

namespace microvm {

// EOPNOTSUPP on file systems without FIEMAP (tmpfs, FUSE, NFS).
Error count_extents(int fd, std::string_view path, uint64_t* count);

// Whether one of the first extents is shared with another file. False where FIEMAP is missing: there is no reflink
// there.
bool shares_extents(int fd);

}  // namespace microvm
