// Answers of SEEK_DATA and SEEK_HOLE, from file systems that do not know what they say: copies come to an end all the
// same. Where the answers call all data data, they are right as well. Linked with --wrap=lseek.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fuzz.h"
#include "image/packed_copy.h"
#include "image/sparse_copy.h"
#include "system/file.h"

namespace {
constexpr size_t kSize = 70'000;
fuzz::Bytes answers;
fuzz::Bytes all_answers;  // given again and again
bool honest = false;
uint64_t data_starts = 0;
uint64_t data_ends = 0;
}  // namespace

extern "C" off_t __wrap_lseek(int, off_t offset, int whence) {
  MUST(offset >= 0 && (whence == SEEK_DATA || whence == SEEK_HOLE));
  if (honest) {
    const auto at = static_cast<uint64_t>(offset);
    const bool in_data = at >= data_starts && at < data_ends;
    if (at >= kSize || (whence == SEEK_DATA && at >= data_ends)) {
      errno = ENXIO;
      return -1;
    }
    if (whence == SEEK_DATA) return static_cast<off_t>(std::max(at, data_starts));
    return static_cast<off_t>(in_data ? data_ends : at);
  }
  if (answers.empty()) answers = all_answers;
  switch (answers.take<uint8_t>() % 6) {
    case 0:
      errno = answers.take<uint8_t>() % 2 == 0 ? ENXIO : EINVAL;
      return -1;
    case 1:
      return answers.take<uint32_t>() % (2 * kSize);
    case 2:
      return offset;
    case 3:
      return 0;
    case 4:
      return INT64_MAX - answers.take<uint8_t>();
    default:
      return offset + std::min<off_t>(answers.take<uint16_t>(), INT64_MAX - offset);
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string bytes = [] {
    std::string text(kSize, '\0');
    for (size_t i = 20'000; i < 50'000; i++) text[i] = static_cast<char>('a' + i % 26);
    return text;
  }();
  static microvm::Fd from;
  static microvm::Fd to;
  if (!from) {
    const std::string path = fuzz::folder() + "/from";
    MUST(microvm::create_file_at(AT_FDCWD, path.c_str(), 0600, path, &from).ok());
    MUST(ftruncate(from.get(), kSize) == 0);
    MUST(microvm::write_all_at(from.get(), bytes.data() + 20'000, 30'000, 20'000, path).ok());
    MUST(microvm::create_file_at(AT_FDCWD, (path + "-to").c_str(), 0600, path, &to).ok());
  }
  answers = fuzz::Bytes(data, size);
  const uint8_t how = answers.take<uint8_t>();
  honest = how % 4 < 2;
  data_starts = answers.take<uint16_t>() % 20'001;
  data_ends = 50'000 + answers.take<uint16_t>() % 20'001;
  const uint64_t budget = 17000 + answers.take<uint32_t>() % (2 * kSize);
  all_answers = answers;
  MUST(ftruncate(to.get(), 0) == 0);

  microvm::SparseCopy sparse(from.get(), to.get(), kSize, "from", "to");
  microvm::PackedCopy packed(from.get(), to.get(), kSize, "from", "to");
  const bool pack = how % 2 == 0;
  microvm::Error error;
  // Holes cost nothing, so steps are bounded by the data alone; a lying file system may at worst make all of it data.
  for (uint64_t steps = 0; error.ok() && !(pack ? packed.done() : sparse.done()); steps++) {
    MUST(steps <= kSize / std::min<uint64_t>(budget, kSize) + 2);
    error = pack ? packed.step(budget) : sparse.step(budget);
  }
  MUST(error.ok() || !honest);
  if (!honest || !error.ok()) return 0;
  std::string sha256;
  MUST((pack ? packed.finish(&sha256) : sparse.finish(nullptr)).ok());
  std::string copy(kSize, 'x');
  MUST(pread(to.get(), copy.data(), kSize, 0) == static_cast<ssize_t>(kSize));
  MUST(copy == bytes);
  return 0;
}
