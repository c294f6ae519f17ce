// Copying an image so that it lies in as few extents as possible, and hashing it on the way.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "image/image_copy.h"
#include "image/sha256.h"
#include "system/holes.h"

namespace microvm {

// Reflinking costs by the extent (12 to 16 microseconds each on XFS), so gaps up to this length are written as zeros
// rather than left as holes, and each range is reserved in one piece.
inline constexpr uint64_t kGapLimit = 16ull << 20;

// But never more zeros than this and a quarter of the image's data.
inline constexpr uint64_t kFillAllowance = 8ull << 20;

class PackedCopy final : public ImageCopy {
 public:
  PackedCopy(int from_fd, int to_fd, uint64_t size, std::string_view path, std::string_view dest, bool hashes = true)
      : ImageCopy(from_fd, to_fd, size, path, dest), hashes_(hashes) {}

  Error finish(std::string* sha256) override;

 private:
  Error start() override;
  // Holes count as bytes where they are hashed, too.
  Error advance(uint64_t budget) override;
  Error copy_data(uint64_t length, char* buffer, uint64_t* copied);
  void hash_hole(uint64_t length, char* buffer);

  const bool hashes_;
  std::vector<DataRange> ranges_;
  size_t range_ = 0;  // the one that position_ is in or before
  Sha256 hash_;
};

}  // namespace microvm
