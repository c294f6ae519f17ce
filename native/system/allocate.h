// fallocate.
#pragma once

#include <cstdint>
#include <string_view>

#include "system/error.h"

namespace microvm {

// Reserves blocks for a range of a file, in one piece where possible, without changing the file's length: that must not
// tell of data which is not there yet. A file system that cannot is no error; a full disk is.
Error reserve(int fd, uint64_t start, uint64_t length, std::string_view path);

}  // namespace microvm
