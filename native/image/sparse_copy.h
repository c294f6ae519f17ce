// Copying an image without turning its holes into blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "image/image_copy.h"

namespace microvm {

class SparseCopy final : public ImageCopy {
 public:
  SparseCopy(int from_fd, int to_fd, uint64_t size, std::string_view path, std::string_view dest)
      : from_fd_(from_fd), to_fd_(to_fd), size_(size), path_(path), dest_(dest) {}

  // Holes cost nothing.
  Error step(uint64_t budget) override;
  // Flushes nothing and gives no digest: `sha256` may be null.
  Error finish(std::string* sha256) override;

  uint64_t position() const override { return position_; }
  bool done() const override { return position_ >= size_; }

 private:
  Error start();
  Error enter_next_range();
  Error copy_bytes(uint64_t length, uint64_t* copied);
  Error copy_in_kernel(uint64_t length, uint64_t* copied);
  Error copy_by_hand(uint64_t length, uint64_t* copied);

  const int from_fd_;
  const int to_fd_;
  const uint64_t size_;
  const std::string path_;
  const std::string dest_;
  uint64_t position_ = 0;
  uint64_t data_end_ = 0;  // position_ < data_end_: inside a range of data
  bool started_ = false;
  bool holes_reported_ = true;  // if not, blocks of zeros are left out
  bool in_kernel_ = true;
};

}  // namespace microvm
