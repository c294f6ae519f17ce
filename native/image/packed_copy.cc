#include "image/packed_copy.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "system/allocate.h"
#include "system/buffer.h"
#include "system/file.h"

namespace microvm {
namespace {

struct Gap {
  uint64_t length;
  size_t after;  // the range that it follows
};

// Joins ranges over the gaps between them: the shortest gaps first, as far as the allowance goes.
void fill_gaps(std::vector<DataRange>* ranges) {
  uint64_t data = 0;
  std::vector<Gap> gaps;
  for (size_t i = 0; i < ranges->size(); i++) {
    data += (*ranges)[i].end - (*ranges)[i].start;
    if (i > 0) gaps.push_back({(*ranges)[i].start - (*ranges)[i - 1].end, i - 1});
  }
  std::sort(gaps.begin(), gaps.end(), [](const Gap& a, const Gap& b) { return a.length < b.length; });
  std::vector<char> filled(ranges->size(), 0);
  uint64_t allowance = kFillAllowance + data / 4;
  for (const Gap& gap : gaps) {
    if (gap.length > kGapLimit || gap.length > allowance) break;
    allowance -= gap.length;
    filled[gap.after] = 1;
  }

  std::vector<DataRange> joined;
  for (size_t i = 0; i < ranges->size(); i++) {
    if (i > 0 && filled[i - 1] != 0) {
      joined.back().end = (*ranges)[i].end;
    } else {
      joined.push_back((*ranges)[i]);
    }
  }
  ranges->swap(joined);
}

}  // namespace

Error PackedCopy::start() {
  Error error = data_ranges(from_fd_, size_, path_, &ranges_, &holes_reported_);
  if (!error.ok() || !holes_reported_) return error;
  fill_gaps(&ranges_);
  for (const DataRange& range : ranges_) {
    error = reserve(to_fd_, range.start, range.end - range.start, dest_);
    if (!error.ok()) return error;
  }
  return {};
}

Error PackedCopy::advance(uint64_t budget) {
  Buffer buffer = allocate(kBufferSize);
  if (!buffer) return Error::of(ENOMEM, "malloc", dest_);
  const uint64_t first = position_;
  while (budget > 0 && !done()) {
    while (range_ < ranges_.size() && position_ >= ranges_[range_].end) range_++;
    const DataRange range = range_ < ranges_.size() ? ranges_[range_] : DataRange{size_, size_};
    uint64_t advanced = 0;
    if (position_ < range.start && !hashes_) {
      position_ = range.start;
    } else if (position_ < range.start) {
      advanced = std::min(budget, range.start - position_);
      hash_hole(advanced, buffer.get());
    } else {
      Error error = copy_data(std::min(budget, range.end - position_), buffer.get(), &advanced);
      if (!error.ok()) return error;
      // The source ended early: it was truncated. Its changed identity is noticed before anything is published.
      if (advanced == 0) position_ = size_;
    }
    budget -= std::min(budget, advanced);
  }
  sync_file_range(to_fd_, static_cast<off_t>(first), static_cast<off_t>(position_ - first), SYNC_FILE_RANGE_WRITE);
  return {};
}

Error PackedCopy::copy_data(uint64_t length, char* buffer, uint64_t* copied) {
  while (*copied < length) {
    size_t count = 0;
    Error error = read_at(from_fd_, buffer, std::min(kBufferSize, length - *copied), position_, path_, &count);
    if (!error.ok() || count == 0) return error;
    if (hashes_) hash_.update(buffer, count);
    if (holes_reported_ || !all_zeros(buffer, count)) {
      error = write_all_at(to_fd_, buffer, count, position_, dest_);
      if (!error.ok()) return error;
    }
    position_ += count;
    *copied += count;
  }
  return {};
}

void PackedCopy::hash_hole(uint64_t length, char* buffer) {
  std::memset(buffer, 0, kBufferSize);
  position_ += length;
  for (; length > 0; length -= std::min(kBufferSize, length)) hash_.update(buffer, std::min(kBufferSize, length));
}

Error PackedCopy::finish(std::string* sha256) {
  if (retry_eintr([&] { return fdatasync(to_fd_); }) < 0) return Error::last("fdatasync", dest_);
  if (retry_eintr([&] { return ftruncate(to_fd_, static_cast<off_t>(size_)); }) < 0) {
    return Error::last("ftruncate", dest_);
  }
  if (!hashes_) return {};
  char hex[64];
  hash_.finish_hex(hex);
  sha256->assign(hex, sizeof hex);
  return {};
}

}  // namespace microvm
