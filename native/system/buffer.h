// A block of memory whose allocation may fail.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace microvm {

struct FreeMemory {
  void operator()(char* memory) const { std::free(memory); }
};

using Buffer = std::unique_ptr<char, FreeMemory>;

inline Buffer allocate(size_t size) { return Buffer(static_cast<char*>(std::malloc(size))); }

}  // namespace microvm
