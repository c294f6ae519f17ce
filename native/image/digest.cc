#include "image/digest.h"

#include <fcntl.h>

#include <algorithm>

#include "system/buffer.h"
#include "system/file.h"
#include "system/holes.h"
#include "system/identity.h"

namespace microvm {
namespace {

constexpr uint64_t kBufferSize = 128 * 1024;  // stays in the second-level cache between the read and the hash

// How far ahead of the hash the disk reads, and in what steps: the kernel takes no more than a disk can read at once.
constexpr uint64_t kReadAhead = 8 * 1024 * 1024;
constexpr uint64_t kReadAheadStep = 1024 * 1024;

char zeros[16 * 1024];  // never written

}  // namespace

Error Digest::look() {
  FileInfo info;
  Error error = stat_fd(source_->fd(), source_->path(), &info);
  if (!error.ok()) return error;
  data_start_ = position_;
  data_end_ = UINT64_MAX;
  const uint64_t size = info.identity.size;
  // At the end only a read shows whether the file has grown. Files in procfs have no length at all.
  if (position_ >= size) return {};
  DataRange range;
  if (!next_data_range(source_->fd(), position_, size, source_->path(), &range).ok()) return {};
  data_start_ = range.start;
  data_end_ = range.end;
  return {};
}

// A sealed image shares its template's blocks, but not its pages, which are read from the disk. Without reading ahead,
// disk and hash would wait for each other.
void Digest::read_ahead() {
  ahead_ = std::max(ahead_, position_);
  const uint64_t end = std::min(data_end_, position_ + kReadAhead);
  for (; ahead_ < end; ahead_ += kReadAheadStep)
    (void)posix_fadvise(source_->fd(), static_cast<off_t>(ahead_), kReadAheadStep, POSIX_FADV_WILLNEED);
}

Error Digest::step(uint64_t budget) {
  Buffer buffer = allocate(kBufferSize);
  if (!buffer) return Error::of(ENOMEM, "malloc", source_->path());
  while (budget > 0 && !done_) {
    if (position_ >= data_end_) {
      Error error = look();
      if (!error.ok()) return error;
    }
    size_t count = 0;
    if (position_ < data_start_) {
      count = std::min({sizeof zeros, data_start_ - position_, budget});
      hash_.update(zeros, count);
    } else {
      read_ahead();
      const uint64_t length = std::min({kBufferSize, data_end_ - position_, budget});
      Error error = read_at(source_->fd(), buffer.get(), length, position_, source_->path(), &count);
      if (!error.ok()) return error;
      if (count == 0) {
        char hex[64];
        hash_.finish_hex(hex);
        hex_.assign(hex, sizeof hex);
        done_ = true;
        break;
      }
      hash_.update(buffer.get(), count);
    }
    position_ += count;
    budget -= count;
  }
  return {};
}

}  // namespace microvm
