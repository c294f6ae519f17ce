// Flushing the data of slots that were published before their copies had reached the disk.
#pragma once

#include <string>
#include <vector>

#include "slot/managed_folder.h"
#include "system/error.h"

namespace microvm {

// Flushes the slots that were copied in this boot, and removes their marks. A slot that is gone, was settled by
// somebody else, or is kept from us by a lease, is no error. The others are settled even if one fails.
Error settle_slots(const ManagedFolder& managed, const std::vector<std::string>& slots, const std::string& boot_id);

}  // namespace microvm
