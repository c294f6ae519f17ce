// Copying an image without turning its holes into blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "image/image_copy.h"

namespace microvm {

class SparseCopy final : public ImageCopy {
 public:
  using ImageCopy::ImageCopy;

  // Flushes nothing and gives no digest: `sha256` may be null.
  Error finish(std::string* sha256) override;

 private:
  Error start() override;
  // Holes cost nothing.
  Error advance(uint64_t budget) override;
  Error enter_next_range();
  Error copy_bytes(uint64_t length, uint64_t* copied);
  Error copy_in_kernel(uint64_t length, uint64_t* copied);
  Error copy_by_hand(uint64_t length, uint64_t* copied);

  uint64_t data_end_ = 0;  // position_ < data_end_: inside a range of data
  bool in_kernel_ = true;
};

}  // namespace microvm
