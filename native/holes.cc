#include "holes.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "identity.h"

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
  if (hole < 0) return Error::last("lseek(SEEK_HOLE)", path);
  range->start = std::min(static_cast<uint64_t>(data), size);
  range->end = std::min(static_cast<uint64_t>(hole), size);
  return {};
}

// Compares the bytes with themselves shifted by one: equal if every byte equals the first.
bool all_zeros(const char* data, size_t length) { return data[0] == 0 && std::memcmp(data, data + 1, length - 1) == 0; }

}  // namespace microvm
