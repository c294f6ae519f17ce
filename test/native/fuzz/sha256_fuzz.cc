// SHA-256 in pieces of any length is that of the whole, by the processor's instructions and without them.
#include <algorithm>

#include "fuzz.h"
#include "image/sha256.h"

using microvm::Sha256;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Sha256 whole;
  whole.update(data, size);
  char expected[64];
  whole.finish_hex(expected);

  Sha256 pieces;
  for (size_t at = 0; at < size;) {
    const size_t length = std::min<size_t>(size - at, data[at]);
    pieces.update(data + at, length);
    pieces.update(data + at + length, std::min<size_t>(1, size - at - length));
    at += length + 1;
  }
  char got[64];
  pieces.finish_hex(got);
  MUST(std::memcmp(got, expected, sizeof got) == 0);

  const auto hardware = microvm::sha256_internal::hardware_blocks();
  if (hardware == nullptr) return 0;
  uint32_t one[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  uint32_t other[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  hardware(one, data, size / 64);
  microvm::sha256_internal::generic_blocks(other, data, size / 64);
  MUST(std::memcmp(one, other, sizeof one) == 0);
  return 0;
}
