// In a folder where names that differ only in case are the same (ext4 with casefold, virtiofs or SMB of another system)
// VM-1 opens the folder of vm-1.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// The name that the folder `slot`, which was found by the name given, really has.
Error real_name(const ManagedFolder& managed, const std::string& slot, const Identity& folder, std::string* name);

}  // namespace microvm
