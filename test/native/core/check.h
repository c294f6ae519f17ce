// The whole test framework: a list of functions, and checks that end the function that they fail in.
#pragma once

#include <string>
#include <string_view>

#include "system/error.h"

namespace core_test {

struct Failed {};

[[noreturn]] void fail(const char* file, int line, const std::string& what);

inline void check_ok(const char* file, int line, const char* call, const microvm::Error& error) {
  if (error.ok()) return;
  fail(file, line,
       std::string(call) + ": errno " + std::to_string(error.code) + " of " + error.syscall + " on " + error.path);
}

inline void check_errno(const char* file, int line, const char* call, const microvm::Error& error, int expected) {
  if (error.is(expected)) return;
  fail(file, line,
       std::string(call) + ": errno " + std::to_string(error.code) + " rather than " + std::to_string(expected));
}

// Each test file declares its tests at namespace scope; main() runs them in a folder of their own each.
struct Test {
  Test(const char* name, void (*run)());
};

#define TEST(identifier, name)                                       \
  void identifier();                                                 \
  const ::core_test::Test registered_##identifier(name, identifier); \
  void identifier()

#define CHECK(condition)                                                 \
  do {                                                                   \
    if (!(condition)) ::core_test::fail(__FILE__, __LINE__, #condition); \
  } while (false)
#define CHECK_OK(call) ::core_test::check_ok(__FILE__, __LINE__, #call, (call))
#define CHECK_ERRNO(call, expected) ::core_test::check_errno(__FILE__, __LINE__, #call, (call), expected)

// The folder that the running test may use, on the file system under test; whether that file system has FICLONE.
const std::string& folder();
bool reflinks();

}  // namespace core_test
