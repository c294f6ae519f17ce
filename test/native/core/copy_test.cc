// Copies, holes, reflinks and extents.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "files.h"
#include "image/digest.h"
#include "image/packed_copy.h"
#include "image/source.h"
#include "image/sparse_copy.h"
#include "system/errno_policy.h"
#include "system/extents.h"
#include "system/file.h"
#include "system/holes.h"
#include "system/reflink.h"

using namespace core_test;
using microvm::Error;
using microvm::Fd;
using microvm::FileInfo;
using microvm::PackedCopy;
using microvm::Ref;
using microvm::Source;
using microvm::SparseCopy;

namespace {

std::string from_path() { return folder() + "/from"; }
std::string to_path() { return folder() + "/to"; }

struct Pair {
  Ref<Source> from;
  FileInfo info;
  Fd to;

  Pair() {
    CHECK_OK(Source::open(from_path(), &from, &info));
    CHECK_OK(microvm::create_file_at(AT_FDCWD, to_path().c_str(), 0600, to_path(), &to));
  }
};

void copy_sparsely(uint64_t budget) {
  Pair pair;
  SparseCopy copy(pair.from->fd(), pair.to.get(), pair.info.identity.size, from_path(), to_path());
  while (!copy.done()) CHECK_OK(copy.step(budget));
  CHECK_OK(copy.finish(nullptr));
}

std::string copy_packed(uint64_t budget) {
  Pair pair;
  std::string sha256;
  PackedCopy copy(pair.from->fd(), pair.to.get(), pair.info.identity.size, from_path(), to_path());
  while (!copy.done()) CHECK_OK(copy.step(budget));
  CHECK_OK(copy.finish(&sha256));
  return sha256;
}

std::string digest_of(const std::string& path) {
  Ref<Source> source;
  FileInfo info;
  CHECK_OK(Source::open(path, &source, &info));
  microvm::Digest digest(source);
  while (!digest.done()) CHECK_OK(digest.step(100'003));
  return digest.hex();
}

void start_again(uint64_t length, const std::vector<Piece>& pieces) {
  unlink(to_path().c_str());
  write_sparse(from_path(), length, pieces);
}

struct Shape {
  uint64_t length;
  std::vector<Piece> pieces;
};

std::vector<Shape> shapes() {
  return {
      {0, {}},
      {1, {{0, "x"}}},
      {3 * kMiB + 17, {}},                                                          // a hole alone
      {kMiB, {{0, noise(kMiB)}}},                                                   // data alone
      {5 * kMiB, {{0, noise(4096)}, {2 * kMiB, noise(70'001, 2)}}},                 // ends in a hole
      {9 * kMiB + 5, {{kMiB, noise(300 * kKiB, 3)}, {9 * kMiB - 3, noise(8, 4)}}},  // starts in a hole
      {2 * kMiB, {{0, std::string(kMiB, '\0')}, {kMiB, noise(5, 5)}}},              // zeros that are data
  };
}

TEST(sparse_copies, "a sparse copy has the bytes, the length, and no more blocks than its source") {
  for (const uint64_t budget : {uint64_t{4097}, 64 * kMiB}) {
    for (const Shape& shape : shapes()) {
      start_again(shape.length, shape.pieces);
      copy_sparsely(budget);
      CHECK(read_file(to_path()) == read_file(from_path()));
      // XFS shares whole blocks in copy_file_range, and holds some spare ones for a tail that is not whole for minutes.
      if (shape.length % 4096 == 0) CHECK(blocks_of(to_path()) <= blocks_of(from_path()));
    }
  }
}

TEST(packed_copies, "a packed copy has the bytes, and the digest of them") {
  for (const uint64_t budget : {uint64_t{5000}, 64 * kMiB}) {
    for (const Shape& shape : shapes()) {
      start_again(shape.length, shape.pieces);
      const std::string sha256 = copy_packed(budget);
      CHECK(read_file(to_path()) == read_file(from_path()));
      CHECK(sha256 == digest_of(from_path()));
    }
  }
}

TEST(packed_extents, "a packed copy fills small gaps and lies in fewer extents") {
  std::vector<Piece> pieces;
  for (uint64_t i = 0; i < 32; i++) pieces.push_back({i * 128 * kKiB, noise(8192, i + 1)});
  start_again(4 * kMiB, pieces);
  copy_packed(kMiB);
  Pair pair = [] {
    unlink((to_path() + ".moved").c_str());
    CHECK(rename(to_path().c_str(), (to_path() + ".moved").c_str()) == 0);
    return Pair();
  }();
  Ref<Source> packed;
  FileInfo info;
  CHECK_OK(Source::open(to_path() + ".moved", &packed, &info));
  uint64_t before = 0;
  uint64_t after = 0;
  const Error error = microvm::count_extents(pair.from->fd(), from_path(), &before);
  if (error.is(EOPNOTSUPP)) return;  // tmpfs has no FIEMAP
  CHECK_OK(error);
  CHECK_OK(microvm::count_extents(packed->fd(), to_path(), &after));
  CHECK(before == 32);
  CHECK(after < before);
}

TEST(large_copies, "sizes over 4 GiB are not cut to 32 bits") {
  const uint64_t at = 5 * kGiB + 12'345;
  start_again(6 * kGiB, {{at, "far out"}});
  copy_sparsely(64 * kMiB);
  CHECK(length_of(to_path()) == 6 * kGiB);
  CHECK(read_part(to_path(), at, 7) == "far out");
  CHECK(blocks_of(to_path()) <= blocks_of(from_path()));
}

TEST(truncated_sources, "a source that is cut while it is copied ends the copy") {
  for (const bool packed : {false, true}) {
    start_again(4 * kMiB, {{0, noise(4 * kMiB)}});
    Pair pair;
    const uint64_t size = pair.info.identity.size;
    SparseCopy sparse(pair.from->fd(), pair.to.get(), size, from_path(), to_path());
    PackedCopy pack(pair.from->fd(), pair.to.get(), size, from_path(), to_path());
    CHECK_OK(packed ? pack.step(kMiB) : sparse.step(kMiB));
    CHECK(truncate(from_path().c_str(), 1) == 0);
    for (int steps = 0; !(packed ? pack.done() : sparse.done()); steps++) {
      CHECK(steps < 100);
      CHECK_OK(packed ? pack.step(kMiB) : sparse.step(kMiB));
    }
  }
}

TEST(reflinks_share, "a reflink shares its blocks where the file system can, and is refused where it cannot") {
  start_again(3 * kMiB + 5, {{0, noise(kMiB)}, {2 * kMiB, noise(4096, 2)}});
  Pair pair;
  const Error error = microvm::reflink(pair.from->fd(), pair.to.get(), pair.info.identity.size, from_path(), to_path());
  if (!reflinks()) {
    CHECK(!error.ok());
    CHECK(microvm::verdict_of(error.code) == microvm::Verdict::kNextRung);
    CHECK(!microvm::shares_extents(pair.to.get()));
    return;
  }
  CHECK_OK(error);
  CHECK(microvm::shares_extents(pair.to.get()));
  CHECK(read_file(to_path()) == read_file(from_path()));
}

TEST(ranges_of_data, "ranges of data are found in order, and end at the size that was asked for") {
  start_again(8 * kMiB, {{kMiB, noise(64 * kKiB)}, {4 * kMiB, noise(kMiB, 2)}});
  Pair pair;
  microvm::DataRange range;
  uint64_t covered = 0;
  uint64_t at = 0;
  for (; at < 8 * kMiB; at = range.end) {
    CHECK_OK(microvm::next_data_range(pair.from->fd(), at, 8 * kMiB, from_path(), &range));
    if (range.empty()) break;
    CHECK(range.start >= at && range.end <= 8 * kMiB);
    covered += range.end - range.start;
  }
  CHECK(covered >= kMiB + 64 * kKiB);
  CHECK_OK(microvm::next_data_range(pair.from->fd(), 4 * kMiB, 4 * kMiB + 100, from_path(), &range));
  CHECK(range.start == 4 * kMiB && range.end == 4 * kMiB + 100);
}

TEST(odd_sources, "a source must be a regular file") {
  Ref<Source> source;
  FileInfo info;
  CHECK_ERRNO(Source::open(folder(), &source, &info), EINVAL);
  CHECK_ERRNO(Source::open("/dev/zero", &source, &info), EINVAL);
  CHECK_ERRNO(Source::open(folder() + "/missing", &source, &info), ENOENT);
  CHECK(mkfifo((folder() + "/fifo").c_str(), 0600) == 0);
  CHECK_ERRNO(Source::open(folder() + "/fifo", &source, &info), EINVAL);
  CHECK(!source);
}

}  // namespace
