#include "system/allocate.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include "system/errno_policy.h"

namespace microvm {
namespace {

Error allocate(int fd, int mode, uint64_t start, uint64_t length, std::string_view path) {
  if (retry_eintr([&] { return fallocate(fd, mode, static_cast<off_t>(start), static_cast<off_t>(length)); }) < 0 &&
      verdict_of(errno) == Verdict::kStop) {
    return Error::last("fallocate", path);
  }
  return {};
}

}  // namespace

Error reserve(int fd, uint64_t start, uint64_t length, std::string_view path) {
  return allocate(fd, FALLOC_FL_KEEP_SIZE, start, length, path);
}

Error reserve_all(int fd, const std::vector<DataRange>& ranges, std::string_view path) {
  for (const DataRange& range : ranges) {
    Error error = reserve(fd, range.start, range.end - range.start, path);
    if (error.ok()) continue;
    (void)give_back_all(fd, ranges, path);  // the first error says more
    return error;
  }
  return {};
}

Error give_back_all(int fd, const std::vector<DataRange>& ranges, std::string_view path) {
  for (const DataRange& range : ranges) {
    constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    Error error = allocate(fd, kPunch, range.start, range.end - range.start, path);
    if (!error.ok()) return error;
  }
  return {};
}

}  // namespace microvm
