#include "system/error.h"

namespace microvm {

namespace {

std::string in_base(uint64_t base, uint64_t number) {
  std::string digits;
  do {
    digits.insert(digits.begin(), "0123456789abcdef"[number % base]);
    number /= base;
  } while (number != 0);
  return digits;
}

}  // namespace

std::string decimal(uint64_t number) { return in_base(10, number); }
std::string hexadecimal(uint64_t number) { return in_base(16, number); }

}  // namespace microvm
