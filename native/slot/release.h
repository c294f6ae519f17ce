// Taking a slot away from its VM, and a snapshot from its folder. managed_folder.h says who may delete a folder.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

enum class ReleaseStatus {
  kReleased,
  kAbsent,
  kNotASlot,   // or no folder
  kCollision,  // another id's slot
  kTorn,       // its raw id cannot be read
  kInUse,
  kBusy,  // another process keeps changing the slot; try again
};

struct ReleaseRequest {
  std::string slot;
  std::string raw_id;  // empty: equals the slot's name
  bool refuse_in_use = false;
  bool durable = false;
  bool torn = false;  // whatever raw id the slot has, if its folder is in this state:
  Identity expected;
  int snapshot_fd = -1;  // not a slot but a snapshot, if its folder is still this one, which the caller has open
};

// Moves a slot or a snapshot into trash.
Error release_slot(ManagedFolder& managed, const ReleaseRequest& request, ReleaseStatus* status,
                   std::string* raw_id_found);

}  // namespace microvm
