// FIEMAP answers: whatever the kernel says, with any count of extents, nothing beyond the buffer is read. Linked with
// --wrap=ioctl.
#include <linux/fiemap.h>
#include <linux/fs.h>

#include <cerrno>
#include <cstdarg>

#include "fuzz.h"
#include "system/extents.h"

namespace {
fuzz::Bytes answer;
bool shared_extent_given = false;
}  // namespace

extern "C" int __wrap_ioctl(int, unsigned long request, ...) {
  MUST(request == FS_IOC_FIEMAP);
  va_list arguments;
  va_start(arguments, request);
  auto* map = va_arg(arguments, struct fiemap*);
  va_end(arguments);
  if (answer.take<uint8_t>() % 8 == 0) {
    errno = EOPNOTSUPP;
    return -1;
  }
  const uint32_t asked = map->fm_extent_count;
  map->fm_mapped_extents = answer.take<uint32_t>() % 3 == 0 ? answer.take<uint32_t>() : asked;
  for (uint32_t i = 0; i < asked && i < map->fm_mapped_extents; i++) {
    map->fm_extents[i] = answer.take<struct fiemap_extent>();
    shared_extent_given = shared_extent_given || (map->fm_extents[i].fe_flags & FIEMAP_EXTENT_SHARED) != 0;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  answer = fuzz::Bytes(data, size);
  shared_extent_given = false;
  const bool shares = microvm::shares_extents(0);
  MUST(shares == shared_extent_given);
  uint64_t count = 0;
  const microvm::Error error = microvm::count_extents(0, "image", &count);
  MUST(error.ok() || error.is(EOPNOTSUPP));
  MUST(count <= UINT32_MAX);
  return 0;
}
