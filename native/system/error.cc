#include "system/error.h"

namespace microvm {

std::string decimal(uint64_t number) {
  std::string digits;
  do {
    digits.insert(digits.begin(), static_cast<char>('0' + number % 10));
    number /= 10;
  } while (number != 0);
  return digits;
}

}  // namespace microvm
