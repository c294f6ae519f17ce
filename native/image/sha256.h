// SHA-256 (FIPS 180-4), with the processor's SHA instructions where it has them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace microvm {

class Sha256 {
 public:
  Sha256();

  void update(const void* data, size_t length);

  // Writes the digest as lower-case hex, without a terminating zero. The object must not be used afterwards.
  void finish_hex(char out[64]);

 private:
  uint32_t state_[8];
  uint64_t length_ = 0;  // bytes so far; the last length_ % 64 of them wait in pending_
  uint8_t pending_[64];
};

// For the tests, which hold the two block functions against each other.
namespace sha256_internal {

// Works `count` blocks of 64 bytes into the state; `data` needs no alignment.
using BlockFunction = void (*)(uint32_t state[8], const uint8_t* data, size_t count);

void generic_blocks(uint32_t state[8], const uint8_t* data, size_t count);

// nullptr where the processor has no SHA-256 instructions.
BlockFunction hardware_blocks();

}  // namespace sha256_internal
}  // namespace microvm
