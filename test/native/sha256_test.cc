// Stands alone: compile with native/image/sha256.cc, run, exit status 0 is success.
#include "image/sha256.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace {

using microvm::Sha256;
using microvm::sha256_internal::BlockFunction;
using microvm::sha256_internal::generic_blocks;
using microvm::sha256_internal::hardware_blocks;

static_assert(std::is_trivially_copyable_v<Sha256>, "a hash in progress can be copied");
static_assert(sizeof(Sha256) <= 128, "a hash in progress is small");

int passed = 0;
int failed = 0;
int skipped = 0;

bool equal(const char* what, size_t at, std::string_view got, std::string_view expected) {
  if (got == expected) return true;
  std::printf("  %s %zu: got %.*s, expected %.*s\n", what, at, static_cast<int>(got.size()), got.data(),
              static_cast<int>(expected.size()), expected.data());
  return false;
}

void report(const char* name, bool ok) {
  std::printf("%s %s\n", ok ? "ok    " : "FAILED", name);
  ++(ok ? passed : failed);
}

std::string finish(Sha256 hash) {
  char hex[64];
  hash.finish_hex(hex);
  return std::string(hex, sizeof hex);
}

std::string digest(const void* data, size_t length) {
  Sha256 hash;
  hash.update(data, length);
  return finish(hash);
}

std::string digest(std::string_view text) { return digest(text.data(), text.size()); }

// xorshift64 (Marsaglia): the same bytes on every machine.
std::vector<uint8_t> random_bytes(size_t size, uint64_t seed) {
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    byte = static_cast<uint8_t>(seed >> 32);
  }
  return bytes;
}

// NIST, examples for FIPS 180-4 and the Secure Hash Standard Validation System.
bool gives_the_published_digests() {
  const struct {
    std::string message;
    std::string_view expected;
  } vectors[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrst"
       "u",
       "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
      {std::string(1000000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  bool ok = true;
  for (const auto& vector : vectors) {
    ok &= equal("length", vector.message.size(), digest(vector.message), vector.expected);
  }
  return ok;
}

// Splits alone would not notice padding that is wrong at some length, so the digests of all lengths are hashed
// together. The expected value is of Python's hashlib:
//   d = bytes((i * i * 7 + i * 13 + 5 >> 3) & 255 for i in range(300)); c = sha256()
//   for n in range(301): c.update(sha256(d[:n]).hexdigest().encode())
bool pads_every_length() {
  uint8_t data[300];
  for (unsigned i = 0; i < sizeof data; ++i) data[i] = static_cast<uint8_t>((i * i * 7 + i * 13 + 5) >> 3);
  Sha256 all;
  for (size_t length = 0; length <= sizeof data; ++length) {
    const std::string hex = digest(data, length);
    all.update(hex.data(), hex.size());
  }
  return equal("lengths to", sizeof data, finish(all),
               "290f5dde588e4931ea5495fdb459bfa1dcc141ac3b69e74135d6184b1157e0b5");
}

bool does_not_depend_on_where_updates_split() {
  for (size_t length = 0; length <= 300; ++length) {
    // A block of its own for each length, so that a sanitizer sees a read past its end.
    const std::vector<uint8_t> data = random_bytes(length, length + 1);
    const std::string expected = digest(data.data(), length);
    Sha256 bytewise;
    for (size_t split = 0; split <= length; ++split) {
      Sha256 halves;
      halves.update(data.data(), split);
      halves.update(data.data() + split, length - split);
      if (!equal("length", length, finish(halves), expected)) return false;
      if (split < length) bytewise.update(data.data() + split, 1);
    }
    if (!equal("bytewise, length", length, finish(bytewise), expected)) return false;
  }
  return true;
}

bool takes_an_empty_update_of_no_memory() {
  Sha256 hash;
  hash.update(nullptr, 0);
  hash.update("ab", 2);
  hash.update(nullptr, 0);
  hash.update("c", 1);
  return equal("length", 3, finish(hash), digest("abc"));
}

bool copies_are_independent() {
  Sha256 hash;
  hash.update("ab", 2);
  Sha256 copy = hash;
  copy.update("x", 1);
  hash.update("c", 1);
  return equal("original", 3, finish(hash), digest("abc")) && equal("copy", 3, finish(copy), digest("abx"));
}

// The length field counts bits: 2^29 bytes are the first length that does not fit 32 of them.
bool counts_bits_beyond_32() {
  const std::vector<uint8_t> zeros(1 << 20);
  Sha256 hash;
  for (int i = 0; i < 512; ++i) hash.update(zeros.data(), zeros.size());
  return equal("bytes", size_t{1} << 29, finish(hash),
               "9acca8e8c22201155389f65abbf6bc9723edc7384ead80503839f49dcc56d767");
}

bool same_state(BlockFunction hardware, const uint32_t (&initial)[8], const uint8_t* data, size_t count) {
  uint32_t expected[8];
  uint32_t got[8];
  std::memcpy(expected, initial, sizeof expected);
  std::memcpy(got, initial, sizeof got);
  generic_blocks(expected, data, count);
  hardware(got, data, count);
  if (std::memcmp(got, expected, sizeof got) == 0) return true;
  std::printf("  the block functions differ on %zu blocks\n", count);
  return false;
}

bool hardware_and_generic_blocks_agree(BlockFunction hardware) {
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    const size_t count = seed % 9;
    const size_t misaligned = seed % 16;
    const std::vector<uint8_t> start = random_bytes(32, seed << 32);
    const std::vector<uint8_t> data = random_bytes(misaligned + 64 * count, seed);
    uint32_t initial[8];
    std::memcpy(initial, start.data(), sizeof initial);
    if (!same_state(hardware, initial, data.data() + misaligned, count)) return false;
  }
  const uint32_t ones[8] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
  const std::vector<uint8_t> all_ones(64 * 4, 0xff);
  return same_state(hardware, ones, all_ones.data(), 4);
}

// "abc" with its padding is one block. This names the wrong function of the two where they disagree.
bool block_function_knows_abc(BlockFunction blocks) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const uint32_t expected[8] = {0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223,
                                0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad};
  uint8_t block[64] = {'a', 'b', 'c', 0x80};
  block[63] = 24;
  blocks(state, block, 1);
  return std::memcmp(state, expected, sizeof state) == 0;
}

}  // namespace

int main() {
  report("gives the published digests", gives_the_published_digests());
  report("pads every length from 0 to 300", pads_every_length());
  report("does not depend on where updates split", does_not_depend_on_where_updates_split());
  report("takes an empty update of no memory", takes_an_empty_update_of_no_memory());
  report("copies are independent", copies_are_independent());
  report("counts bits beyond 32", counts_bits_beyond_32());
  report("the generic block function knows abc", block_function_knows_abc(generic_blocks));
  if (const BlockFunction hardware = hardware_blocks()) {
    report("the hardware block function knows abc", block_function_knows_abc(hardware));
    report("hardware and generic blocks agree", hardware_and_generic_blocks_agree(hardware));
  } else {
    std::puts("skip   the hardware block function: this processor has no SHA-256 instructions");
    skipped += 2;
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 ? 0 : 1;
}
