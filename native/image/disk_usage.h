// The blocks that files hold on disk, by FIEMAP. Blocks that several files share count once.
#pragma once

#include <cstdint>
#include <string>
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
  bool mapped = false;  // by FIEMAP, which also gives the number of extents
  uint64_t extents = 0;
};

// A range of bytes on the disk with this device number.
struct Piece {
  uint64_t device = 0;
  uint64_t start = 0;
  uint64_t end = 0;
};

// The blocks of an open file; the pieces that it shares are added to `shared`. Without FIEMAP files can only share
// blocks as hardlinks, and then a file with several names counts as alone.
Error find_blocks(int fd, std::string_view path, FileBlocks* blocks, std::vector<Piece>* shared);

// The blocks of a file that cannot be opened. All count as alone.
Error count_blocks(const std::string& path, FileBlocks* blocks);

// A sum of files, perhaps part of a whole: whatever is added to the part is added to the whole too. All parts of one
// whole must be used by one thread at a time.
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
