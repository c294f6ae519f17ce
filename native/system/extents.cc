#include "system/extents.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

namespace microvm {
namespace {

int call_fiemap(int fd, struct fiemap* map, uint64_t position, uint32_t extent_count) {
  map->fm_start = position;
  map->fm_length = FIEMAP_MAX_OFFSET - position;
  map->fm_extent_count = extent_count;
  return retry_eintr([&] { return ioctl(fd, FS_IOC_FIEMAP, map); });
}

Error not_known(std::string_view path) { return Error::of(EOPNOTSUPP, "ioctl(FIEMAP)", path); }

// The head is followed by the extents that the kernel fills in.
struct alignas(struct fiemap) ExtentMap {
  char bytes[sizeof(struct fiemap) + Extents::kLimit * sizeof(struct fiemap_extent)] = {};
  struct fiemap* get() {
    return reinterpret_cast<struct fiemap*>(bytes);
  }
  uint32_t count() { return get()->fm_mapped_extents < Extents::kLimit ? get()->fm_mapped_extents : Extents::kLimit; }
};

}  // namespace

Error count_extents(int fd, std::string_view path, uint64_t* count) {
  struct fiemap map = {};
  map.fm_flags = FIEMAP_FLAG_SYNC;  // data still in memory has no extents yet
  if (call_fiemap(fd, &map, 0, 0) < 0) return not_known(path);
  *count = map.fm_mapped_extents;
  return {};
}

bool shares_extents(int fd) {
  // btrfs looks up for each extent who else has it, which takes as long as a clone: of a new clone the first is enough.
  for (uint32_t asked : {1U, Extents::kLimit}) {
    ExtentMap map;
    if (call_fiemap(fd, map.get(), 0, asked) < 0) return false;
    for (uint32_t i = 0; i < map.count(); i++) {
      if ((map.get()->fm_extents[i].fe_flags & FIEMAP_EXTENT_SHARED) != 0) return true;
    }
  }
  return false;
}

Error next_extents(int fd, std::string_view path, uint64_t position, Extents* extents) {
  ExtentMap map;
  if (call_fiemap(fd, map.get(), position, Extents::kLimit) < 0) {
    return errno == EIO ? Error::last("ioctl(FIEMAP)", path) : not_known(path);
  }
  extents->count = map.count();
  for (uint32_t i = 0; i < extents->count; i++) {
    const struct fiemap_extent& from = map.get()->fm_extents[i];
    Extent& extent = extents->list[i];
    extent.logical = from.fe_logical;
    extent.physical = from.fe_physical;
    extent.length = from.fe_length;
    extent.shared = (from.fe_flags & FIEMAP_EXTENT_SHARED) != 0;
    extent.located = (from.fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DATA_INLINE)) == 0;
    if ((from.fe_flags & FIEMAP_EXTENT_LAST) != 0) extents->last = true;
  }
  return {};
}

}  // namespace microvm
