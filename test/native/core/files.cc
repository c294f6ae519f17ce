#include "files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "check.h"

namespace core_test {
namespace {

int open_or_fail(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0) fail(__FILE__, __LINE__, "open " + path);
  return fd;
}

struct stat status_of(const std::string& path) {
  struct stat status = {};
  if (lstat(path.c_str(), &status) != 0) fail(__FILE__, __LINE__, "lstat " + path);
  return status;
}

}  // namespace

std::string noise(size_t length, uint64_t seed) {
  std::string bytes(length, '\0');
  for (char& byte : bytes) {
    seed ^= seed << 13;  // xorshift64 (Marsaglia)
    seed ^= seed >> 7;
    seed ^= seed << 17;
    byte = static_cast<char>(1 + seed % 255);
  }
  return bytes;
}

void write_sparse(const std::string& path, uint64_t length, const std::vector<Piece>& pieces) {
  const int fd = open_or_fail(path, O_WRONLY | O_CREAT | O_TRUNC);
  bool ok = ftruncate(fd, static_cast<off_t>(length)) == 0;
  for (const Piece& piece : pieces) {
    ok = ok && pwrite(fd, piece.bytes.data(), piece.bytes.size(), static_cast<off_t>(piece.offset)) ==
                   static_cast<ssize_t>(piece.bytes.size());
  }
  ok = ok && fsync(fd) == 0;
  close(fd);
  if (!ok) fail(__FILE__, __LINE__, "write " + path);
}

void write_file(const std::string& path, std::string_view contents) {
  write_sparse(path, contents.size(), {{0, std::string(contents)}});
}

std::string read_file(const std::string& path) { return read_part(path, 0, length_of(path)); }

std::string read_part(const std::string& path, uint64_t offset, size_t length) {
  const int fd = open_or_fail(path, O_RDONLY);
  std::string bytes(length, '\0');
  const ssize_t count = pread(fd, bytes.data(), length, static_cast<off_t>(offset));
  close(fd);
  if (count < 0) fail(__FILE__, __LINE__, "read " + path);
  bytes.resize(static_cast<size_t>(count));
  return bytes;
}

bool exists(const std::string& path) {
  struct stat status = {};
  return lstat(path.c_str(), &status) == 0;
}

uint64_t length_of(const std::string& path) { return static_cast<uint64_t>(status_of(path).st_size); }
uint64_t blocks_of(const std::string& path) { return static_cast<uint64_t>(status_of(path).st_blocks); }

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  DIR* stream = opendir(folder.c_str());
  if (stream == nullptr) fail(__FILE__, __LINE__, "opendir " + folder);
  while (const dirent* entry = readdir(stream)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace core_test
