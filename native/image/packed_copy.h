// Copying an image so that it lies in as few extents as possible, and hashing it on the way.
#pragma once

#include <cstdint>
#include <string>
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
      : from_fd_(from_fd), to_fd_(to_fd), size_(size), path_(path), dest_(dest), hashes_(hashes) {}

  // Holes count as bytes where they are hashed, too.
  Error step(uint64_t budget) override;
  Error finish(std::string* sha256) override;

  uint64_t position() const override { return position_; }
  bool done() const override { return position_ >= size_; }

 private:
  Error start();
  Error copy_data(uint64_t length, char* buffer, uint64_t* copied);
  void hash_hole(uint64_t length, char* buffer);

  const int from_fd_;
  const int to_fd_;
  const uint64_t size_;
  const std::string path_;
  const std::string dest_;
  const bool hashes_;
  std::vector<DataRange> ranges_;
  size_t range_ = 0;  // the one that position_ is in or before
  uint64_t position_ = 0;
  bool started_ = false;
  bool holes_reported_ = true;
  Sha256 hash_;
};

}  // namespace microvm
