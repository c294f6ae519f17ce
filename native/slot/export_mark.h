// Which further names of a slot's image exportTo made. Everything else that has a name of it is somebody else's.
#pragma once

#include <cstdint>
#include <string>

#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// How many of the names that the slot's mark lists lead to the image now. A name that went does not count, so that
// another one, which somebody gave the image since, is not taken for it.
Error count_exported(int slot_fd, const std::string& slot_path, const Identity& image, uint64_t* names);

// Lists one more, before it is made.
Error list_exported(int slot_fd, const std::string& slot_path, const Identity& image, const std::string& name);

}  // namespace microvm
