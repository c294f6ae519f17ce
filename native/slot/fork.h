// A new slot from another's present contents, in one trip.
#pragma once

#include <string>

#include "slot/clone_slot.h"
#include "slot/managed_folder.h"
#include "slot/slot_state.h"
#include "system/error.h"
#include "system/ref.h"

namespace microvm {

struct ForkRequest {
  std::string from;
  std::string from_raw_id;  // if sanitising changed it
  SlotName name;
  OwnerAndMode owner_and_mode;
  bool durable = false;
};

// *status is kCreated, kExists or kSourceChanged; or any other for what takes more than one trip: the parent is not
// plainly whole, changes right now, or cannot be reflinked. Nothing was made then.
Error fork_slot(const Ref<ManagedFolder>& managed, const ForkRequest& request, SlotState* parent, CloneStatus* status);

}  // namespace microvm
