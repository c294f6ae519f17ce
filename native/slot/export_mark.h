// Which further names of a slot's image exportTo made. Any other name of it is somebody else's.
#pragma once

#include <cstdint>
#include <string>

#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// How many of the names that the slot's mark lists lead to the image now. A name that is gone does not count: otherwise
// a name that somebody gave the image since would be taken for it.
Error count_exported(int slot_fd, const std::string& slot_path, const Identity& image, uint64_t* names);

// Lists one more, before it is made.
Error list_exported(int slot_fd, const std::string& slot_path, const Identity& image, const std::string& name);

}  // namespace microvm
