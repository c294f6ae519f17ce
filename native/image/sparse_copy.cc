#include "image/sparse_copy.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "system/buffer.h"
#include "system/errno_policy.h"
#include "system/file.h"
#include "system/holes.h"

namespace microvm {
namespace {

constexpr uint64_t kBlockSize = 4096;  // what is left out as a hole when it holds zeros alone

}  // namespace

Error SparseCopy::start() {
  Error error = reports_holes(from_fd_, size_, path_, &holes_reported_);
  if (error.ok() && !holes_reported_) data_end_ = size_;
  // The length first: a file system that sees a file grow reserves blocks beyond its end, XFS up to as many as it has.
  if (error.ok() && retry_eintr([&] { return ftruncate(to_fd_, static_cast<off_t>(size_)); }) < 0) {
    return Error::last("ftruncate", dest_);
  }
  return error;
}

Error SparseCopy::advance(uint64_t budget) {
  while (budget > 0 && !done()) {
    if (position_ >= data_end_) {
      Error error = enter_next_range();
      if (!error.ok()) return error;
      continue;
    }
    uint64_t copied = 0;
    Error error = copy_bytes(std::min(budget, data_end_ - position_), &copied);
    if (!error.ok()) return error;
    // The source ended early: it was truncated. Its changed identity is noticed before anything is published.
    if (copied == 0) position_ = size_;
    budget -= std::min(budget, copied);
  }
  return {};
}

Error SparseCopy::finish(std::string*) { return {}; }

Error SparseCopy::enter_next_range() {
  DataRange range;
  Error error = next_data_range(from_fd_, position_, size_, path_, &range);
  if (!error.ok()) return error;
  position_ = range.start;
  data_end_ = range.end;
  return {};
}

Error SparseCopy::copy_bytes(uint64_t length, uint64_t* copied) {
  if (in_kernel_ && holes_reported_) {
    Error error = copy_in_kernel(length, copied);
    if (error.ok() && *copied > 0) return error;
    if (!error.ok() && verdict_of(error.code) == Verdict::kStop) return error;
    in_kernel_ = false;  // also where it says 0 although the file goes on, as some file systems do: read() decides
  }
  return copy_by_hand(length, copied);
}

Error SparseCopy::copy_in_kernel(uint64_t length, uint64_t* copied) {
  off_t from = static_cast<off_t>(position_);
  off_t to = from;
  ssize_t count = retry_eintr(
      [&] { return static_cast<ssize_t>(syscall(SYS_copy_file_range, from_fd_, &from, to_fd_, &to, length, 0U)); });
  if (count < 0) return Error::last("copy_file_range", path_, dest_);
  *copied = static_cast<uint64_t>(count);
  position_ += *copied;
  return {};
}

Error SparseCopy::copy_by_hand(uint64_t length, uint64_t* copied) {
  Buffer buffer = allocate(kBufferSize);
  if (!buffer) return Error::of(ENOMEM, "malloc", dest_);
  while (*copied < length) {
    size_t count = 0;
    Error error = read_at(from_fd_, buffer.get(), std::min(kBufferSize, length - *copied), position_, path_, &count);
    if (!error.ok()) return error;
    if (count == 0) break;
    for (size_t done = 0; done < count;) {
      size_t piece = holes_reported_ ? count : std::min<size_t>(kBlockSize, count - done);
      if (holes_reported_ || !all_zeros(buffer.get() + done, piece)) {
        error = write_all_at(to_fd_, buffer.get() + done, piece, position_ + done, dest_);
        if (!error.ok()) return error;
      }
      done += piece;
    }
    position_ += count;
    *copied += count;
  }
  return {};
}

}  // namespace microvm
