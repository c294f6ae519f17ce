// Whether a slot's image is also a template's, or another slot's. A link count says nothing of that: a jail or a backup
// may have given the image another name.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

enum class Sharer { kNobody, kTemplate, kSlot };

// Looks at every template and at every other slot: for the rare image with several names alone.
Error find_shared_image(const ManagedFolder& managed, const std::string& slot, const Identity& image,
                        const std::string& template_dir, Sharer* sharer);

}  // namespace microvm
