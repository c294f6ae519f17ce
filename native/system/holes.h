// Where a file holds data: SEEK_DATA and SEEK_HOLE.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "system/error.h"

namespace microvm {

struct DataRange {
  uint64_t start = 0;
  uint64_t end = 0;
  bool empty() const { return start >= end; }
};

// Whether the file system reports holes. Some (FUSE, ramfs) call everything data although the file has
// fewer blocks than its length.
Error reports_holes(int fd, uint64_t size, std::string_view path, bool* reports);

// The first range of data at or after `from`, within `size`; empty at `size` if only a hole is left.
Error next_data_range(int fd, uint64_t from, uint64_t size, std::string_view path, DataRange* range);

// All ranges of data in a file of this length; the whole file where the file system does not report holes.
Error data_ranges(int fd, uint64_t size, std::string_view path, std::vector<DataRange>* ranges, bool* reports);

bool all_zeros(const char* data, size_t length);

}  // namespace microvm
