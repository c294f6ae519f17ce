// flock: locks that the kernel drops when their holder dies.
#pragma once

#include <string_view>

#include "system/error.h"

namespace microvm {

// Waits for the lock.
Error lock(int fd, std::string_view path);

// EWOULDBLOCK if another open file holds it.
Error try_lock(int fd, std::string_view path);

}  // namespace microvm
