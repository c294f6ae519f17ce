// Owner and mode of an image: fchown and fchmod.
#pragma once

#include <cstdint>
#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

struct OwnerAndMode {
  bool has_owner = false;
  uint32_t uid = 0;
  uint32_t gid = 0;
  bool has_mode = false;
  uint32_t mode = 0;

  bool empty() const { return !has_owner && !has_mode; }
};

Error set_owner_and_mode(int fd, const OwnerAndMode& owner_and_mode, const std::string& path);

// The image of a published slot. *same is false, and nothing is changed, if the slot's folder is not in the state
// `folder`, or its image is not the file `image`.
Error set_slot_owner_and_mode(const ManagedFolder& managed, const std::string& slot, const Identity& folder,
                              const Identity& image, const OwnerAndMode& owner_and_mode, bool* same);

}  // namespace microvm
