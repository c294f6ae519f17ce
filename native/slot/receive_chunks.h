// Chunks of an image, as a program writes them to a pipe one after the other. Each is compared with its SHA-256 before
// it is written to its place in the image.
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

struct ReceivedChunks {
  // All before the first that is missing, cut off or has another digest.
  size_t written = 0;
  // The output goes on behind the last chunk.
  bool has_more = false;
};

Error receive_chunks(int pipe, int image, std::string_view path, const std::vector<Chunk>& chunks,
                     ReceivedChunks* received);

}  // namespace microvm
