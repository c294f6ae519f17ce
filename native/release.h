// Taking a slot away.
#pragma once

#include <string>

#include "error.h"
#include "identity.h"
#include "store.h"

namespace microvm {

enum class ReleaseStatus { kReleased, kAbsent, kForeign, kCollision, kTorn, kInUse };

struct ReleaseRequest {
  std::string slot;
  std::string raw_id;       // empty: equals the slot's name
  bool refuse_in_use = false;
  bool durable = false;
  bool torn = false;   // whatever raw id the slot has, as long as its folder is this one:
  Identity expected;
};

// Moves a slot into trash.
Error release_slot(Store& store, const ReleaseRequest& request, ReleaseStatus* status, std::string* raw_id_found);

}  // namespace microvm
