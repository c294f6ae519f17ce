// The kernel's Documentation/filesystems/ext4/super.rst has the layout.
#include "image/ext4.h"

#include <sys/auxv.h>

#include <algorithm>

#include "system/file.h"

namespace microvm {
namespace {

constexpr uint64_t kOffset = 1024;
constexpr size_t kSize = 1024;
constexpr uint64_t kMagic = 0xef53;
constexpr uint64_t kLargestLogBlockSize = 6;
constexpr uint64_t kIncompat64Bit = 0x80;

class Superblock {
 public:
  Error read(int fd, std::string_view path) {
    size_t count = 0;
    return read_full_at(fd, bytes_, kSize, kOffset, path, &count);
  }

  bool is_ext4() const {
    return number(0x38, 2) == kMagic && number(0x18, 4) <= kLargestLogBlockSize && blocks() > 0 && group() > 0;
  }
  uint64_t block_size() const { return uint64_t{1024} << log_block(); }
  // A cluster is many blocks with bigalloc; otherwise one block.
  uint64_t cluster_blocks() const {
    return uint64_t{1} << (std::clamp(number(0x1c, 4), log_block(), log_block() + 16) - log_block());
  }
  uint64_t blocks() const { return number(0x04, 4) + (is_64bit() ? number(0x150, 4) << 32 : 0); }
  uint64_t first_block() const { return number(0x14, 4); }
  uint64_t group() const { return number(0x20, 4); }

  // resize2fs leaves out a last group of fewer blocks than it needs for its own tables and 50 more.
  uint64_t smallest_group(uint64_t groups) const {
    const uint64_t descriptor = is_64bit() ? std::max<uint64_t>(number(0xfe, 2), 32) : 32;
    const uint64_t inode = std::max<uint64_t>(number(0x58, 2), 128);
    const uint64_t inode_tables = blocks_for(number(0x28, 4) * inode);
    return 2 + inode_tables + 1 + blocks_for(groups * descriptor) + number(0xce, 2) + 50;
  }

 private:
  uint64_t log_block() const { return number(0x18, 4); }
  bool is_64bit() const { return (number(0x60, 4) & kIncompat64Bit) != 0; }
  uint64_t blocks_for(uint64_t bytes) const { return bytes / block_size() + (bytes % block_size() != 0 ? 1 : 0); }
  // Little-endian, on every processor.
  uint64_t number(size_t offset, size_t length) const {
    uint64_t value = 0;
    for (size_t i = length; i > 0; i--) value = value << 8 | static_cast<unsigned char>(bytes_[offset + i - 1]);
    return value;
  }

  char bytes_[kSize] = {};
};

}  // namespace

Error fills_image(int image_fd, std::string_view path, uint64_t length, bool* fills) {
  Superblock superblock;
  Error error = superblock.read(image_fd, path);
  *fills = true;
  if (!error.ok() || !superblock.is_ext4()) return error;
  const uint64_t wanted = length / superblock.block_size();
  const uint64_t blocks = superblock.blocks();
  // Without a size resize2fs rounds down to whole pages, and always to whole clusters.
  const uint64_t page = uint64_t{getauxval(AT_PAGESZ)} / superblock.block_size();
  if (blocks > wanted || wanted - blocks < std::max(page, superblock.cluster_blocks())) return {};
  // It ends at the end of a group, and what is left is too small for another.
  const uint64_t in_groups = blocks - std::min(blocks, superblock.first_block());
  const uint64_t groups = in_groups / superblock.group();
  *fills = in_groups % superblock.group() == 0 && wanted - blocks < superblock.smallest_group(groups + 1);
  return {};
}

}  // namespace microvm
