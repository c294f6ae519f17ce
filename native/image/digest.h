// The SHA-256 of an open file, in steps of a bounded number of bytes. Holes are hashed without being read, which would
// fill the page cache with zeros.
#pragma once

#include <cstdint>
#include <string>

#include "image/sha256.h"
#include "image/source.h"
#include "system/error.h"
#include "system/ref.h"

namespace microvm {

class Digest final : public Shared {
 public:
  explicit Digest(Ref<Source> source) : source_(std::move(source)) {}

  // Hashes about `budget` bytes. Call until done().
  Error step(uint64_t budget);

  bool done() const { return done_; }
  uint64_t position() const { return position_; }
  const std::string& hex() const { return hex_; }

 private:
  Error look();
  void read_ahead();

  const Ref<Source> source_;
  Sha256 hash_;
  uint64_t position_ = 0;
  // The next range of data; what lies before it is a hole.
  uint64_t data_start_ = 0;
  uint64_t data_end_ = 0;
  // Up to where the disk has been asked to read.
  uint64_t ahead_ = 0;
  bool done_ = false;
  std::string hex_;
};

}  // namespace microvm
