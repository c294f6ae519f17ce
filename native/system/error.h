// How a failed system call travels: a plain value, from the call that failed to the JavaScript error built of it.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace microvm {

struct [[nodiscard]] Error {
  int code = 0;  // errno; 0 is success
  const char* syscall = "";
  std::string path;
  std::string dest;
  bool change_made = false;  // what was asked for is done; only flushing it failed

  bool ok() const { return code == 0; }
  bool is(int errno_value) const { return code == errno_value; }
  Error after_change() const {
    Error error = *this;
    error.change_made = !ok();
    return error;
  }

  static Error of(int code, const char* syscall, std::string_view path, std::string_view dest = {}) {
    Error error;
    error.code = code;
    error.syscall = syscall;
    error.path = path;
    error.dest = dest;
    return error;
  }

  // The error of the call that just failed; read errno before anything else can change it.
  static Error last(const char* syscall, std::string_view path, std::string_view dest = {}) {
    return of(errno, syscall, path, dest);
  }
};

// Repeats a call that a signal interrupted. `close` is never repeated: Linux frees the descriptor all the same.
template <class Call>
auto retry_eintr(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

inline std::string join(std::string_view folder, std::string_view name) {
  std::string path(folder);
  path += '/';
  path += name;
  return path;
}

std::string decimal(uint64_t number);
std::string hexadecimal(uint64_t number);

}  // namespace microvm
