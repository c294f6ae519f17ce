// A new slot with the present contents of another one, made in one trip to another thread.
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
  // The digest of the parent's template, and its size, which an image without a size stamp must have. Without them one
  // trip is not enough for such an image.
  std::string template_sha256;
  uint64_t template_size = 0;
  SlotName name;
  OwnerAndMode owner_and_mode;
  bool durable = false;
};

// *status is kCreated, kExists or kSourceChanged. Any other status means that nothing was made because one trip is not
// enough: the parent is not plainly whole, is being changed, or cannot be reflinked.
Error fork_slot(const Ref<ManagedFolder>& managed, const ForkRequest& request, SlotState* parent, CloneStatus* status);

}  // namespace microvm
