#include "extents.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

namespace microvm {
namespace {

constexpr uint32_t kExtentsAsked = 64;

int call_fiemap(int fd, struct fiemap* map, uint32_t extent_count) {
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_extent_count = extent_count;
  return retry_eintr([&] { return ioctl(fd, FS_IOC_FIEMAP, map); });
}

}  // namespace

Error count_extents(int fd, std::string_view path, uint64_t* count) {
  struct fiemap map = {};
  map.fm_flags = FIEMAP_FLAG_SYNC;  // data still in memory has no extents yet
  if (call_fiemap(fd, &map, 0) < 0) return Error::last("ioctl(FIEMAP)", path);
  *count = map.fm_mapped_extents;
  return {};
}

bool shares_extents(int fd) {
  // The head is followed by the extents that the kernel fills in.
  alignas(struct fiemap) char buffer[sizeof(struct fiemap) + kExtentsAsked * sizeof(struct fiemap_extent)] = {};
  auto* map = reinterpret_cast<struct fiemap*>(buffer);
  if (call_fiemap(fd, map, kExtentsAsked) < 0) return false;
  for (uint32_t i = 0; i < map->fm_mapped_extents && i < kExtentsAsked; i++) {
    if ((map->fm_extents[i].fe_flags & FIEMAP_EXTENT_SHARED) != 0) return true;
  }
  return false;
}

}  // namespace microvm
