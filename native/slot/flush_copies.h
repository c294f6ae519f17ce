// Flushes the data of slots that were published before their copies had reached the disk.
#pragma once

#include <string>
#include <vector>

#include "slot/managed_folder.h"
#include "system/error.h"

namespace microvm {

// Flushes the slots that were copied in this boot, and removes their `unsettled` files. A slot that is gone, that
// another process has flushed, or that a lease keeps from us, is not an error. The others are flushed even if one
// fails.
Error flush_copied_slots(const ManagedFolder& managed, const std::vector<std::string>& slots,
                         const std::string& boot_id);

}  // namespace microvm
