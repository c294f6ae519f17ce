// Taking a slot away.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

enum class ReleaseStatus { kReleased, kAbsent, kForeign, kCollision, kTorn, kInUse };

struct ReleaseRequest {
  std::string slot;
  std::string raw_id;  // empty: equals the slot's name
  bool refuse_in_use = false;
  bool durable = false;
  bool torn = false;  // whatever raw id the slot has, as long as its folder is this one:
  Identity expected;
};

// Moves a slot into trash.
Error release_slot(ManagedFolder& managed, const ReleaseRequest& request, ReleaseStatus* status,
                   std::string* raw_id_found);

// Moves a sealed image or a pooled slot, which nobody but this library uses, into trash. That it is gone already is no
// error.
Error discard_folder(ManagedFolder& managed, Place place, const std::string& name);

}  // namespace microvm
