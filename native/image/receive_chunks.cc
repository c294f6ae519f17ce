#include "image/receive_chunks.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "image/sha256.h"
#include "system/buffer.h"
#include "system/file.h"

namespace microvm {
namespace {

// As much as there is, up to `length`.
Error read_from(int pipe, char* buffer, size_t length, std::string_view path, size_t* count) {
  *count = 0;
  while (*count < length) {
    const ssize_t part = retry_eintr([&] { return read(pipe, buffer + *count, length - *count); });
    if (part < 0) return Error::last("read", path);
    if (part == 0) break;
    *count += static_cast<size_t>(part);
  }
  return {};
}

bool has_digest(const char* data, size_t length, const std::string& sha256) {
  char hex[64];
  Sha256 hash;
  hash.update(data, length);
  hash.finish_hex(hex);
  return sha256 == std::string_view(hex, sizeof hex);
}

// To the disk, so that the flush of the whole image has little left to do. If it fails, that flush says so.
void start_writing(int image, const Chunk& first, const Chunk& last) {
  const uint64_t end = last.offset + last.length;
  (void)sync_file_range(image, static_cast<off_t>(first.offset), static_cast<off_t>(end - first.offset),
                        SYNC_FILE_RANGE_WRITE);
}

}  // namespace

Error receive_chunks(int pipe, int image, std::string_view path, const ExpectedChunks& expected,
                     ReceivedChunks* received) {
  const auto& [skip, chunks, end_mark] = expected;
  size_t longest = std::max(skip, end_mark.size());
  for (const Chunk& chunk : chunks) longest = std::max<size_t>(longest, chunk.length);
  Buffer buffer = allocate(longest);
  if (!buffer) return Error::of(ENOMEM, "malloc", path);
  size_t count = 0;
  Error error = read_from(pipe, buffer.get(), skip, path, &count);
  if (!error.ok()) return error;
  for (const Chunk& chunk : chunks) {
    error = read_from(pipe, buffer.get(), chunk.length, path, &count);
    if (!error.ok()) return error;
    if (count < chunk.length || !has_digest(buffer.get(), count, chunk.sha256)) return {};
    error = write_all_at(image, buffer.get(), count, chunk.offset, path);
    if (!error.ok()) return error;
    received->written++;
  }
  if (!chunks.empty()) start_writing(image, chunks.front(), chunks.back());
  error = read_from(pipe, buffer.get(), end_mark.size(), path, &count);
  received->is_whole = error.ok() && std::string_view(buffer.get(), count) == end_mark;
  return error;
}

}  // namespace microvm
