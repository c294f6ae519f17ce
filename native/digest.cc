#include "digest.h"

#include <algorithm>

#include "buffer.h"
#include "file.h"

namespace microvm {
namespace {

constexpr uint64_t kBufferSize = 128 * 1024;  // stays in the second-level cache between the read and the hash

}  // namespace

Error Digest::step(uint64_t budget) {
  Buffer buffer = allocate(kBufferSize);
  if (!buffer) return Error::of(ENOMEM, "malloc", source_->path());
  while (budget > 0 && !done_) {
    size_t count = 0;
    Error error =
        read_at(source_->fd(), buffer.get(), std::min(kBufferSize, budget), position_, source_->path(), &count);
    if (!error.ok()) return error;
    if (count == 0) {
      char hex[64];
      hash_.finish_hex(hex);
      hex_.assign(hex, sizeof hex);
      done_ = true;
      break;
    }
    hash_.update(buffer.get(), count);
    position_ += count;
    budget -= count;
  }
  return {};
}

}  // namespace microvm
