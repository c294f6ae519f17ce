// A copy of an image that advances in steps of a bounded number of bytes. Descriptors and paths belong to the caller.
#pragma once

#include <cstdint>
#include <string>

#include "system/error.h"

namespace microvm {

class ImageCopy {
 public:
  ImageCopy() = default;
  ImageCopy(const ImageCopy&) = delete;
  ImageCopy& operator=(const ImageCopy&) = delete;
  virtual ~ImageCopy() = default;

  // Copies about `budget` bytes. Call until done().
  virtual Error step(uint64_t budget) = 0;

  // Call after the last step. Sets `sha256` if the copy hashes what it copies.
  virtual Error finish(std::string* sha256) = 0;

  virtual uint64_t position() const = 0;
  virtual bool done() const = 0;
};

}  // namespace microvm
