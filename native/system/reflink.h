// FICLONE, the first rung; StagedSlot::build (slot/staged_slot.cc) goes down the ladder.
#pragma once

#include <cstdint>
#include <string_view>

#include "system/error.h"

namespace microvm {

// Makes the empty file `to_fd` share all blocks of `from_fd`, which is `size` bytes long. The caller checks the length
// afterwards: a signal or a full disk can leave a clone that is short.
Error reflink(int from_fd, int to_fd, uint64_t size, std::string_view path, std::string_view dest);

}  // namespace microvm
