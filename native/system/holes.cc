#include "system/holes.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "system/identity.h"

namespace microvm {

Error reports_holes(int fd, uint64_t size, std::string_view path, bool* reports) {
  FileInfo info;
  Error error = stat_fd(fd, path, &info);
  if (!error.ok()) return error;
  const off_t hole = lseek(fd, 0, SEEK_HOLE);
  const bool has_holes = info.blocks * 512 < size;
  *reports = hole >= 0 && (!has_holes || static_cast<uint64_t>(hole) < size);
  return {};
}

// lseek moves the descriptor's offset, which other jobs on the same file move too: nothing ever reads from it.
Error next_data_range(int fd, uint64_t from, uint64_t size, std::string_view path, DataRange* range) {
  *range = {size, size};
  const off_t data = lseek(fd, static_cast<off_t>(from), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return {};  // a hole up to the end
  if (data < 0) return Error::last("lseek(SEEK_DATA)", path);
  const off_t hole = lseek(fd, data, SEEK_HOLE);
  if (hole < 0 && errno != ENXIO) return Error::last("lseek(SEEK_HOLE)", path);
  // An answer that leads nowhere comes from a file that is changed or cut between the two questions, or from a server
  // of FUSE: then all of the rest may be data. Every other range moves on, so that copies come to an end.
  const bool sensible = static_cast<uint64_t>(data) >= from && hole > data;
  range->start = sensible ? std::min(static_cast<uint64_t>(data), size) : from;
  range->end = sensible ? std::min(static_cast<uint64_t>(hole), size) : size;
  return {};
}

Error data_ranges(int fd, uint64_t size, std::string_view path, std::vector<DataRange>* ranges, bool* reports) {
  Error error = reports_holes(fd, size, path, reports);
  if (!error.ok()) return error;
  if (!*reports) {
    if (size > 0) ranges->push_back({0, size});
    return {};
  }
  for (uint64_t position = 0; position < size;) {
    DataRange range;
    error = next_data_range(fd, position, size, path, &range);
    if (!error.ok() || range.empty()) return error;
    ranges->push_back(range);
    position = range.end;
  }
  return {};
}

// Compares the bytes with themselves shifted by one: equal if every byte equals the first.
bool all_zeros(const char* data, size_t length) { return data[0] == 0 && std::memcmp(data, data + 1, length - 1) == 0; }

}  // namespace microvm
