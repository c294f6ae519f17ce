// The blocks that files hold on disk, those that several share counted once: FIEMAP.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "system/error.h"
#include "system/ref.h"

namespace microvm {

// Bytes of one file's blocks.
struct FileBlocks {
  uint64_t alone = 0;   // nobody else has them: freed with the file
  uint64_t shared = 0;  // with another file, or under another name
};

// A piece of a disk: of the one with this device number.
struct Piece {
  uint64_t device = 0;
  uint64_t start = 0;
  uint64_t end = 0;
};

// What an open file holds; the pieces that it shares are added to `shared`. Where there is no FIEMAP nothing can be
// shared but by hardlinks, and a file with several names counts as alone.
Error find_blocks(int fd, std::string_view path, FileBlocks* blocks, std::vector<Piece>* shared);

// What is added to a part is added to the whole as well. One thread at a time for all parts of a whole.
class DiskUsage final : public Shared {
 public:
  explicit DiskUsage(Ref<DiskUsage> whole) : whole_(std::move(whole)) {}

  void add(const FileBlocks& blocks, const std::vector<Piece>& shared);
  uint64_t total();

 private:
  void merge();

  const Ref<DiskUsage> whole_;
  uint64_t alone_ = 0;
  std::vector<Piece> shared_;
  size_t merged_ = 0;  // pieces that the last merge left
};

}  // namespace microvm
