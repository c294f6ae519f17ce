// Chunks of an image, as a program writes them to a pipe one after the other. Each is compared with its SHA-256 before
// it is written to its place in the image. A random mark follows the last one. Without it, surplus bytes of its frame
// would be read as the start of the next chunk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "system/error.h"

namespace microvm {

struct Chunk {
  uint64_t offset;
  uint32_t length;
  std::string sha256;  // lower-case hex
};

struct ExpectedChunks {
  size_t skip;  // bytes before the first chunk
  std::vector<Chunk> chunks;
  std::string end_mark;
};

struct ReceivedChunks {
  // All before the first that is missing, cut off or has another digest.
  size_t written = 0;
  // The end mark comes right behind the last of them.
  bool is_whole = false;
};

Error receive_chunks(int pipe, int image, std::string_view path, const ExpectedChunks& expected,
                     ReceivedChunks* received);

}  // namespace microvm
