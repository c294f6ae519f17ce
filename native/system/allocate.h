// fallocate.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "system/error.h"
#include "system/holes.h"

namespace microvm {

// Reserves blocks for a range of a file, in one piece where possible. The file keeps its length, which must not count
// data that is not there yet. A file system that cannot reserve is no error; a full disk is.
Error reserve(int fd, uint64_t start, uint64_t length, std::string_view path);

// Reserves all ranges; if the disk is full it reserves none, and they are holes.
Error reserve_all(int fd, const std::vector<DataRange>& ranges, std::string_view path);

// Makes them holes again. A file system that cannot is no error.
Error give_back_all(int fd, const std::vector<DataRange>& ranges, std::string_view path);

}  // namespace microvm
