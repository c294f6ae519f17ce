#include "image/disk_usage.h"

#include <fcntl.h>

#include <algorithm>

#include "system/extents.h"
#include "system/identity.h"

namespace microvm {
namespace {

// Clones of one image share their pieces, so a merge leaves far fewer.
constexpr size_t kMergeAt = 4096;

}  // namespace

Error find_blocks(int fd, std::string_view path, FileBlocks* blocks, std::vector<Piece>* shared) {
  *blocks = FileBlocks();
  FileInfo info;
  Error error = stat_fd(fd, path, &info);
  // A FIFO has no extents, and the kernel's error for that looks like damage.
  if (error.ok() && !info.is_regular()) error = Error::of(EINVAL, "open", path);
  if (!error.ok()) return error;
  uint64_t position = 0;
  for (bool last = false; !last;) {
    const uint64_t before = position;
    Extents extents;
    error = next_extents(fd, path, position, &extents);
    if (error.is(EOPNOTSUPP)) {
      *blocks = FileBlocks();
      blocks->alone = info.blocks * 512;
      return {};
    }
    if (!error.ok()) return error;
    blocks->mapped = true;
    blocks->extents += extents.count;
    for (uint32_t i = 0; i < extents.count; i++) {
      const Extent& extent = extents.list[i];
      position = extent.logical + extent.length;
      // A second name of the file leads to the same blocks again.
      if (extent.located && (extent.shared || info.identity.links > 1)) {
        blocks->shared += extent.length;
        shared->push_back({info.identity.device, extent.physical, extent.physical + extent.length});
      } else {
        blocks->alone += extent.length;
      }
    }
    last = extents.last || position <= before;  // ends whatever the file system answers
  }
  return {};
}

Error count_blocks(const std::string& path, FileBlocks* blocks) {
  FileInfo info;
  Error error = stat_at(AT_FDCWD, path.c_str(), Follow::kNo, path, &info);
  *blocks = FileBlocks();
  if (error.ok()) blocks->alone = info.blocks * 512;
  return error;
}

void DiskUsage::add(const FileBlocks& blocks, const std::vector<Piece>& shared) {
  if (whole_) whole_->add(blocks, shared);
  alone_ += blocks.alone;
  shared_.insert(shared_.end(), shared.begin(), shared.end());
  if (shared_.size() >= kMergeAt + 2 * merged_) merge();
}

uint64_t DiskUsage::total() {
  merge();
  uint64_t bytes = alone_;
  for (const Piece& piece : shared_) bytes += piece.end - piece.start;
  return bytes;
}

void DiskUsage::merge() {
  std::sort(shared_.begin(), shared_.end(), [](const Piece& a, const Piece& b) {
    return a.device != b.device ? a.device < b.device : a.start < b.start;
  });
  size_t kept = 0;
  for (const Piece& piece : shared_) {
    Piece* before = kept == 0 ? nullptr : &shared_[kept - 1];
    if (before != nullptr && before->device == piece.device && piece.start <= before->end) {
      before->end = std::max(before->end, piece.end);
    } else {
      shared_[kept++] = piece;
    }
  }
  shared_.resize(kept);
  merged_ = kept;
}

}  // namespace microvm
