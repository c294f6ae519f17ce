// The few pieces of a C++ runtime that the addon uses, so that the binary needs no libstdc++ of the host: a
// build against a new libstdc++ would not load on older systems, nor a glibc one on musl.
#include <cstdlib>
#include <new>

// NOLINTBEGIN(bugprone-reserved-identifier, cert-dcl37-c, cert-dcl50-cpp, cert-dcl51-cpp, cert-dcl58-cpp): the
// runtime's own names

namespace {
void* allocate_or_abort(std::size_t size) {
  void* memory = std::malloc(size != 0 ? size : 1);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

void* operator new(std::size_t size) { return allocate_or_abort(size); }
void* operator new[](std::size_t size) { return allocate_or_abort(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

extern "C" void __cxa_pure_virtual() { std::abort(); }

// The standard containers call these where they would throw. Each call means a bug here, because every size is checked
// before it reaches a container, and ends the process.
namespace std {
void __throw_length_error(const char*) { abort(); }
void __throw_logic_error(const char*) { abort(); }
void __throw_bad_alloc() { abort(); }
void __throw_bad_array_new_length() { abort(); }
void __throw_bad_function_call() { abort(); }
void __throw_out_of_range(const char*) { abort(); }
void __throw_out_of_range_fmt(const char*, ...) { abort(); }
void __throw_invalid_argument(const char*) { abort(); }
void __glibcxx_assert_fail(const char*, int, const char*, const char*) noexcept { abort(); }
}  // namespace std

// NOLINTEND(bugprone-reserved-identifier, cert-dcl37-c, cert-dcl50-cpp, cert-dcl51-cpp, cert-dcl58-cpp)
