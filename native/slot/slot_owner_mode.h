// Giving the image of a published slot another owner or mode.
#pragma once

#include <string>

#include "image/owner_mode.h"
#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// *same is false, and nothing is changed, if the slot's folder is not in the state
// `folder`, or its image is not the file `image`.
Error set_slot_owner_and_mode(const ManagedFolder& managed, const std::string& slot, const Identity& folder,
                              const Identity& image, const OwnerAndMode& owner_and_mode, bool* same);

}  // namespace microvm
