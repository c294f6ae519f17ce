// core_test FOLDER [reflinks]: runs all tests of the addon's core on the file system that FOLDER is on. Exit status 0
// is success. After each test no descriptor may be open that was not open before.
#include <dirent.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "check.h"
#include "system/file.h"
#include "system/tree.h"

namespace core_test {
namespace {

struct Entry {
  const char* name;
  void (*run)();
};

std::vector<Entry>& tests() {
  static std::vector<Entry> list;
  return list;
}

std::string test_folder;
bool has_reflinks = false;

int open_descriptors() {
  int count = 0;
  DIR* stream = opendir("/proc/self/fd");
  if (stream == nullptr) return -1;
  while (readdir(stream) != nullptr) count++;
  closedir(stream);
  return count;
}

bool passes(const Entry& test) {
  const int before = open_descriptors();
  try {
    test.run();
  } catch (const Failed&) {
    return false;
  }
  const int after = open_descriptors();
  if (after != before) std::printf("  %d descriptors before, %d after\n", before, after);
  return after == before;
}

void clear(const std::string& root) {
  microvm::Fd parent;
  uint64_t budget = UINT64_MAX;
  check_ok(__FILE__, __LINE__, "open", microvm::open_folder(root, &parent));
  check_ok(__FILE__, __LINE__, "remove", microvm::remove_tree(parent.get(), "core-test", root, &budget));
}

}  // namespace

void fail(const char* file, int line, const std::string& what) {
  std::printf("  %s:%d: %s\n", file, line, what.c_str());
  throw Failed();
}

Test::Test(const char* name, void (*run)()) { tests().push_back({name, run}); }

const std::string& folder() { return test_folder; }
bool reflinks() { return has_reflinks; }

int run_all(const std::string& root) {
  int passed = 0;
  int failed = 0;
  test_folder = root + "/core-test";
  for (const Entry& test : tests()) {
    clear(root);
    bool ok = mkdir(test_folder.c_str(), 0700) == 0 && passes(test);
    std::printf("%s %s\n", ok ? "ok    " : "FAILED", test.name);
    std::fflush(stdout);
    ++(ok ? passed : failed);
  }
  clear(root);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace core_test

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: core_test FOLDER [reflinks]\n");
    return 2;
  }
  core_test::has_reflinks = argc == 3 && std::string_view(argv[2]) == "reflinks";
  return core_test::run_all(argv[1]);
}
