#include "copy.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "buffer.h"
#include "errno_policy.h"
#include "file.h"
#include "identity.h"

namespace microvm {
namespace {

constexpr uint64_t kBufferSize = 256 * 1024;
constexpr uint64_t kBlockSize = 4096;  // what is left out as a hole when it holds zeros alone

bool all_zeros(const char* data, size_t length) {
  // Compares the block with itself shifted by one byte: equal if every byte equals the first.
  return data[0] == 0 && std::memcmp(data, data + 1, length - 1) == 0;
}

}  // namespace

Error SparseCopy::step(uint64_t budget) {
  if (holes_ == Holes::kUnprobed) {
    Error error = probe();
    if (!error.ok()) return error;
  }
  while (budget > 0 && !done()) {
    if (position_ >= data_end_) {
      Error error = next_data_range();
      if (!error.ok()) return error;
      continue;
    }
    uint64_t start = position_;
    uint64_t copied = 0;
    Error error = copy_bytes(std::min(budget, data_end_ - position_), &copied);
    if (!error.ok()) return error;
    // The source ended early: it was truncated. Its changed identity is noticed before anything is published.
    if (copied == 0) position_ = size_;
    // Starts writing to disk without waiting, so that the flush at the end finds little left to do.
    if (copied != 0) sync_file_range(to_fd_, static_cast<off_t>(start), static_cast<off_t>(copied), SYNC_FILE_RANGE_WRITE);
    budget -= std::min(budget, copied);
  }
  return {};
}

Error SparseCopy::finish() {
  if (retry_eintr([&] { return fdatasync(to_fd_); }) < 0) return Error::last("fdatasync", dest_);
  if (retry_eintr([&] { return ftruncate(to_fd_, static_cast<off_t>(size_)); }) < 0) {
    return Error::last("ftruncate", dest_);
  }
  return {};
}

Error SparseCopy::probe() {
  FileInfo info;
  Error error = stat_fd(from_fd_, path_, &info);
  if (!error.ok()) return error;
  off_t hole = lseek(from_fd_, 0, SEEK_HOLE);
  bool has_holes = info.blocks * 512 < size_;
  bool reports_holes = hole >= 0 && static_cast<uint64_t>(hole) < size_;
  holes_ = has_holes && !reports_holes ? Holes::kDetect : Holes::kReported;
  if (holes_ == Holes::kDetect || hole < 0) data_end_ = size_;
  return {};
}

// lseek moves the descriptor's offset, which other jobs on the same source move too: nothing ever reads from it.
Error SparseCopy::next_data_range() {
  off_t data = lseek(from_fd_, static_cast<off_t>(position_), SEEK_DATA);
  if (data < 0 && errno == ENXIO) {  // a hole up to the end
    position_ = size_;
    return {};
  }
  if (data < 0) return Error::last("lseek(SEEK_DATA)", path_);
  off_t hole = lseek(from_fd_, data, SEEK_HOLE);
  if (hole < 0) return Error::last("lseek(SEEK_HOLE)", path_);
  position_ = std::min(static_cast<uint64_t>(data), size_);
  data_end_ = std::min(static_cast<uint64_t>(hole), size_);
  if (position_ >= data_end_) return {};
  // In one piece where possible, and a full disk is noticed before the work is done. Without KEEP_SIZE the length would tell
  // of data that is not there yet.
  if (retry_eintr([&] {
        return fallocate(to_fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(position_),
                         static_cast<off_t>(data_end_ - position_));
      }) < 0 &&
      verdict_of(errno) == Verdict::kStop) {
    return Error::last("fallocate", dest_);
  }
  return {};
}

Error SparseCopy::copy_bytes(uint64_t length, uint64_t* copied) {
  if (in_kernel_ && holes_ == Holes::kReported) {
    Error error = copy_in_kernel(length, copied);
    if (error.ok() || verdict_of(error.code) == Verdict::kStop) return error;
    in_kernel_ = false;
  }
  return copy_by_hand(length, copied);
}

Error SparseCopy::copy_in_kernel(uint64_t length, uint64_t* copied) {
  off_t from = static_cast<off_t>(position_);
  off_t to = from;
  ssize_t count = retry_eintr([&] {
    return static_cast<ssize_t>(syscall(SYS_copy_file_range, from_fd_, &from, to_fd_, &to, length, 0U));
  });
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
      size_t piece = holes_ == Holes::kDetect ? std::min<size_t>(kBlockSize, count - done) : count;
      if (holes_ != Holes::kDetect || !all_zeros(buffer.get() + done, piece)) {
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
