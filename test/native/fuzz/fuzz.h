// What the fuzzers share: a reader of the fuzzer's bytes, a folder to work in, and the check that ends a run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace fuzz {

#define MUST(condition)                                                                  \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

// Takes values off the front of the input; zeros when it has run out.
class Bytes {
 public:
  Bytes() = default;
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  template <class T>
  T take() {
    T value = {};
    const size_t count = size_ < sizeof value ? size_ : sizeof value;
    if (count > 0) std::memcpy(&value, data_, count);
    skip(count);
    return value;
  }
  std::string take_string(size_t limit) {
    const size_t count = size_ < limit ? size_ : limit;
    std::string text(reinterpret_cast<const char*>(data_), count);
    skip(count);
    return text;
  }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  void skip(size_t count) {
    data_ += count;
    size_ -= count;
  }
  const uint8_t* data_ = reinterpret_cast<const uint8_t*>("");
  size_t size_ = 0;
};

// In memory where that is to be had, made once, empty at first. The script that runs the fuzzers removes it.
inline const std::string& folder() {
  static const std::string path = [] {
    const char* parent = std::getenv("FUZZ_FOLDER");
    std::string name = std::string(parent != nullptr ? parent : "/tmp") + "/fuzz-XXXXXX";
    MUST(mkdtemp(name.data()) != nullptr);
    return name;
  }();
  return path;
}

}  // namespace fuzz
