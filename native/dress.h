// Owner and mode of an image: fchown and fchmod.
#pragma once

#include <cstdint>
#include <string>

#include "error.h"
#include "identity.h"
#include "store.h"

namespace microvm {

struct Dress {
  bool has_owner = false;
  uint32_t uid = 0;
  uint32_t gid = 0;
  bool has_mode = false;
  uint32_t mode = 0;

  bool empty() const { return !has_owner && !has_mode; }
};

Error dress_file(int fd, const Dress& dress, const std::string& path);

// The image of a published slot, if it is still the file that the caller looked at (ESTALE if not).
Error dress_slot(const Store& store, const std::string& slot, const Identity& expected, const Dress& dress);

}  // namespace microvm
