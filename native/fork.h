// A new slot from another's present contents, in one trip.
#pragma once

#include <string>

#include "error.h"
#include "ref.h"
#include "slot_state.h"
#include "staged_slot.h"
#include "store.h"

namespace microvm {

struct ForkRequest {
  std::string from;
  std::string from_raw_id;  // if sanitising changed it
  SlotName name;
  Dress dress;
  bool durable = false;
};

// *status is kCreated, kExists or kSourceChanged; or any other for what takes more than one trip: the parent is not
// plainly whole, changes right now, or cannot be reflinked. Nothing was made then.
Error fork_slot(const Ref<Store>& store, const ForkRequest& request, SlotState* parent, CloneStatus* status);

}  // namespace microvm
