#include "image/sha256.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define MICROVM_SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))
#elif defined(__aarch64__) && !(defined(__clang__) && __clang_major__ < 16)  // whose arm_neon.h wants -march for these
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define MICROVM_SHA_TARGET __attribute__((target("+crypto")))  // "+sha2" is not enough for the header of GCC 12
#endif

namespace microvm {
namespace {

using sha256_internal::BlockFunction;

constexpr size_t kBlockSize = 64;
constexpr size_t kLengthOffset = kBlockSize - sizeof(uint64_t);  // of the message length, in the last block

alignas(16) constexpr uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

// FIPS 180-4, section 4.1.2.
constexpr uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }
constexpr uint32_t big_sigma0(uint32_t x) { return rotr(x, 2) ^ rotr(x, 13) ^ rotr(x, 22); }
constexpr uint32_t big_sigma1(uint32_t x) { return rotr(x, 6) ^ rotr(x, 11) ^ rotr(x, 25); }
constexpr uint32_t small_sigma0(uint32_t x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }
constexpr uint32_t small_sigma1(uint32_t x) { return rotr(x, 17) ^ rotr(x, 19) ^ x >> 10; }
constexpr uint32_t choose(uint32_t x, uint32_t y, uint32_t z) { return z ^ (x & (y ^ z)); }
constexpr uint32_t majority(uint32_t x, uint32_t y, uint32_t z) { return (x & y) | (z & (x | y)); }

constexpr uint32_t load_be32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

// A round changes two of the eight working variables a to h; it is their names that rotate, not their values.
template <int i>
inline void one_round(uint32_t (&variables)[8], uint32_t word, uint32_t constant) {
  const auto named = [&variables](char name) -> uint32_t& { return variables[(name - 'a' - i) & 7]; };
  uint32_t& h = named('h');
  h += big_sigma1(named('e')) + choose(named('e'), named('f'), named('g')) + constant + word;
  named('d') += h;
  h += big_sigma0(named('a')) + majority(named('a'), named('b'), named('c'));
}

// Only the last sixteen words of the message schedule are kept: word t lies at t % 16, in place of word t - 16.
template <int i>
inline void next_word(uint32_t (&w)[16]) {
  w[i] += small_sigma1(w[(i + 14) % 16]) + w[(i + 9) % 16] + small_sigma0(w[(i + 1) % 16]);
}

// Indices known to the compiler let it keep variables and words in registers.
template <bool schedule_more, int... i>
inline void sixteen_rounds(uint32_t (&variables)[8], uint32_t (&w)[16], const uint32_t* k,
                           std::integer_sequence<int, i...>) {
  ((one_round<i>(variables, w[i], k[i]), schedule_more ? next_word<i>(w) : void()), ...);
}

#if defined(MICROVM_SHA_TARGET)
#define MICROVM_SHA_INLINE MICROVM_SHA_TARGET inline __attribute__((always_inline))

// What sha_blocks needs of each processor: the state in two registers, and steps of four words or four rounds.
#if defined(__x86_64__)

using Words = __m128i;
struct State {
  Words abef, cdgh;  // named from the highest lane down, the order that SHA256RNDS2 wants (Intel SDM, volume 2)
};

MICROVM_SHA_INLINE Words reversed(Words w) { return _mm_shuffle_epi32(w, _MM_SHUFFLE(0, 1, 2, 3)); }

MICROVM_SHA_INLINE State load_state(const uint32_t* s) {
  const Words abcd = reversed(_mm_loadu_si128(reinterpret_cast<const Words*>(s)));
  const Words efgh = reversed(_mm_loadu_si128(reinterpret_cast<const Words*>(s + 4)));
  return {_mm_unpackhi_epi64(efgh, abcd), _mm_unpacklo_epi64(efgh, abcd)};
}

MICROVM_SHA_INLINE void store_state(uint32_t* s, State state) {
  const Words abcd = _mm_unpackhi_epi64(state.cdgh, state.abef);
  const Words efgh = _mm_unpacklo_epi64(state.cdgh, state.abef);
  _mm_storeu_si128(reinterpret_cast<Words*>(s), reversed(abcd));
  _mm_storeu_si128(reinterpret_cast<Words*>(s + 4), reversed(efgh));
}

MICROVM_SHA_INLINE State add(State x, State y) {
  return {_mm_add_epi32(x.abef, y.abef), _mm_add_epi32(x.cdgh, y.cdgh)};
}

MICROVM_SHA_INLINE Words load_words(const uint8_t* data) {
  const Words swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const Words*>(data)), swap);
}

// Two rounds make a new ABEF out of the old CDGH, and the old ABEF is the new CDGH.
MICROVM_SHA_INLINE void four_rounds(State& state, Words w, const uint32_t* k) {
  const Words wk = _mm_add_epi32(w, _mm_load_si128(reinterpret_cast<const Words*>(k)));
  state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, wk);
  state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_unpackhi_epi64(wk, wk));
}

MICROVM_SHA_INLINE Words next_words(Words w0, Words w1, Words w2, Words w3) {
  const Words seven_back = _mm_alignr_epi8(w3, w2, 4);
  return _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), seven_back), w3);
}

// CPUID itself, for __builtin_cpu_supports needs a table of libgcc's. These instructions work on SSE registers, which
// every x86-64 kernel saves: no XGETBV.
bool has_sha_instructions() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return false;
  if ((ecx & bit_SSSE3) == 0 || (ecx & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & bit_SHA) != 0;
}

#else  // AArch64

using Words = uint32x4_t;
struct State {
  Words abcd, efgh;
};

MICROVM_SHA_INLINE State load_state(const uint32_t* s) { return {vld1q_u32(s), vld1q_u32(s + 4)}; }

MICROVM_SHA_INLINE void store_state(uint32_t* s, State state) {
  vst1q_u32(s, state.abcd);
  vst1q_u32(s + 4, state.efgh);
}

MICROVM_SHA_INLINE State add(State x, State y) { return {vaddq_u32(x.abcd, y.abcd), vaddq_u32(x.efgh, y.efgh)}; }

MICROVM_SHA_INLINE Words load_words(const uint8_t* data) { return vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data))); }

MICROVM_SHA_INLINE void four_rounds(State& state, Words w, const uint32_t* k) {
  const Words wk = vaddq_u32(w, vld1q_u32(k));
  const Words abcd = state.abcd;
  state.abcd = vsha256hq_u32(abcd, state.efgh, wk);
  state.efgh = vsha256h2q_u32(state.efgh, abcd, wk);
}

MICROVM_SHA_INLINE Words next_words(Words w0, Words w1, Words w2, Words w3) {
  return vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3);
}

bool has_sha_instructions() { return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0; }

#endif

// The sixteen last words of the message schedule are always in w0 to w3; each step replaces the four oldest.
MICROVM_SHA_TARGET void sha_blocks(uint32_t state_words[8], const uint8_t* data, size_t count) {
  State state = load_state(state_words);
  for (; count > 0; --count, data += kBlockSize) {
    const State before = state;
    Words w0 = load_words(data);
    Words w1 = load_words(data + 16);
    Words w2 = load_words(data + 32);
    Words w3 = load_words(data + 48);
    const uint32_t* k = kRoundConstants;
    for (; k != kRoundConstants + 48; k += 16) {
      four_rounds(state, w0, k);
      w0 = next_words(w0, w1, w2, w3);
      four_rounds(state, w1, k + 4);
      w1 = next_words(w1, w2, w3, w0);
      four_rounds(state, w2, k + 8);
      w2 = next_words(w2, w3, w0, w1);
      four_rounds(state, w3, k + 12);
      w3 = next_words(w3, w0, w1, w2);
    }
    four_rounds(state, w0, k);
    four_rounds(state, w1, k + 4);
    four_rounds(state, w2, k + 8);
    four_rounds(state, w3, k + 12);
    state = add(state, before);
  }
  store_state(state_words, state);
}

#endif  // MICROVM_SHA_TARGET

void hash_blocks(uint32_t state[8], const uint8_t* data, size_t count) {
  // Constant-initialised, so it needs no guard; threads that race store the same value.
  static std::atomic<BlockFunction> chosen{nullptr};
  BlockFunction blocks = chosen.load(std::memory_order_relaxed);
  if (blocks == nullptr) {
    blocks = sha256_internal::hardware_blocks();
    if (blocks == nullptr) blocks = sha256_internal::generic_blocks;
    chosen.store(blocks, std::memory_order_relaxed);
  }
  blocks(state, data, count);
}

}  // namespace

namespace sha256_internal {

void generic_blocks(uint32_t state[8], const uint8_t* data, size_t count) {
  constexpr std::make_integer_sequence<int, 16> kSixteen;
  for (; count > 0; --count, data += kBlockSize) {
    uint32_t w[16];
    for (size_t i = 0; i < 16; ++i) w[i] = load_be32(data + 4 * i);
    uint32_t variables[8];
    std::copy_n(state, 8, variables);
    const uint32_t* k = kRoundConstants;
    for (; k != kRoundConstants + 48; k += 16) sixteen_rounds<true>(variables, w, k, kSixteen);
    sixteen_rounds<false>(variables, w, k, kSixteen);
    for (int i = 0; i < 8; ++i) state[i] += variables[i];
  }
}

BlockFunction hardware_blocks() {
#if defined(MICROVM_SHA_TARGET)
  if (has_sha_instructions()) return sha_blocks;
#endif
  return nullptr;
}

}  // namespace sha256_internal

Sha256::Sha256()
    : state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {}

void Sha256::update(const void* data, size_t length) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  const size_t waiting = length_ % kBlockSize;
  length_ += length;
  if (waiting > 0) {
    const size_t taken = std::min(length, kBlockSize - waiting);
    std::copy_n(bytes, taken, pending_ + waiting);
    if (waiting + taken < kBlockSize) return;
    hash_blocks(state_, pending_, 1);
    bytes += taken;
    length -= taken;
  }
  const size_t whole = length / kBlockSize;
  if (whole > 0) hash_blocks(state_, bytes, whole);
  std::copy_n(bytes + whole * kBlockSize, length % kBlockSize, pending_);
}

void Sha256::finish_hex(char out[64]) {
  size_t end = length_ % kBlockSize;
  pending_[end++] = 0x80;
  if (end > kLengthOffset) {
    std::memset(pending_ + end, 0, kBlockSize - end);
    hash_blocks(state_, pending_, 1);
    end = 0;
  }
  std::memset(pending_ + end, 0, kLengthOffset - end);
  const uint64_t bits = length_ * 8;
  for (size_t i = 0; i < sizeof bits; ++i) pending_[kLengthOffset + i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  hash_blocks(state_, pending_, 1);

  for (int nibble = 0; nibble < 64; ++nibble) {
    out[nibble] = "0123456789abcdef"[state_[nibble / 8] >> (28 - nibble % 8 * 4) & 15];
  }
}

}  // namespace microvm
