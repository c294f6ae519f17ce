// A copy of an image that advances in steps of a bounded number of bytes. Descriptors belong to the caller.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "system/error.h"

namespace microvm {

class ImageCopy {
 public:
  ImageCopy(int from_fd, int to_fd, uint64_t size, std::string_view path, std::string_view dest)
      : from_fd_(from_fd), to_fd_(to_fd), size_(size), path_(path), dest_(dest) {}
  ImageCopy(const ImageCopy&) = delete;
  ImageCopy& operator=(const ImageCopy&) = delete;
  virtual ~ImageCopy() = default;

  // Copies about `budget` bytes. Call until done().
  Error step(uint64_t budget) {
    if (!started_) {
      started_ = true;
      Error error = start();
      if (!error.ok()) return error;
    }
    return advance(budget);
  }

  // Call after the last step. Sets `sha256` if the copy hashes what it copies.
  virtual Error finish(std::string* sha256) = 0;

  uint64_t position() const { return position_; }
  bool done() const { return position_ >= size_; }

 protected:
  virtual Error start() = 0;
  virtual Error advance(uint64_t budget) = 0;

  static constexpr uint64_t kBufferSize = 256 * 1024;

  const int from_fd_;
  const int to_fd_;
  const uint64_t size_;
  const std::string path_;
  const std::string dest_;
  uint64_t position_ = 0;
  bool holes_reported_ = true;  // if not, blocks of zeros are left out

 private:
  bool started_ = false;
};

}  // namespace microvm
