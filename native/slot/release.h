// Taking a slot away from its VM. managed_folder.h says who may delete its folder.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

enum class ReleaseStatus {
  kReleased,
  kAbsent,
  kForeign,    // not a slot
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
};

// Moves a slot into trash.
Error release_slot(ManagedFolder& managed, const ReleaseRequest& request, ReleaseStatus* status,
                   std::string* raw_id_found);

}  // namespace microvm
