// Files of a test: what lies where, written and read without the code under test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace core_test {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// The same bytes on every machine, none of them zero.
std::string noise(size_t length, uint64_t seed = 1);

struct Piece {
  uint64_t offset;
  std::string bytes;
};

// A file of this length, with these bytes and holes everywhere else; flushed, so that its blocks are settled.
void write_sparse(const std::string& path, uint64_t length, const std::vector<Piece>& pieces);
void write_file(const std::string& path, std::string_view contents);
std::string read_file(const std::string& path);
std::string read_part(const std::string& path, uint64_t offset, size_t length);

bool exists(const std::string& path);
uint64_t length_of(const std::string& path);
uint64_t blocks_of(const std::string& path);
std::vector<std::string> names_in(const std::string& folder);

}  // namespace core_test
