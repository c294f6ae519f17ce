// Copying an image without turning its holes into blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "error.h"

namespace microvm {

// A copy that advances in steps of a bounded number of bytes. Both descriptors and paths belong to the caller.
class SparseCopy {
 public:
  SparseCopy(int from_fd, int to_fd, uint64_t size, std::string_view path, std::string_view dest)
      : from_fd_(from_fd), to_fd_(to_fd), size_(size), path_(path), dest_(dest) {}

  // Copies about `budget` bytes of data; holes cost nothing. Call until done().
  Error step(uint64_t budget);

  // Flushes the data and sets the final length: only now is the copy what its length says, also after a power cut.
  Error finish();

  uint64_t position() const { return position_; }
  bool done() const { return position_ >= size_; }

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
