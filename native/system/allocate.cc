#include "system/allocate.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include "system/errno_policy.h"

namespace microvm {

Error reserve(int fd, uint64_t start, uint64_t length, std::string_view path) {
  if (retry_eintr([&] {
        return fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(start), static_cast<off_t>(length));
      }) < 0 &&
      verdict_of(errno) == Verdict::kStop) {
    return Error::last("fallocate", path);
  }
  return {};
}

}  // namespace microvm
