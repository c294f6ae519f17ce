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
  std::string raw_id;  // empty: equals the slot's name
  bool refuse_in_use = false;
  bool durable = false;
  bool torn = false;  // whatever raw id the slot has, as long as its folder is this one:
  Identity expected;
};

// Moves a slot into trash.
Error release_slot(Store& store, const ReleaseRequest& request, ReleaseStatus* status, std::string* raw_id_found);

// Moves a sealed image or a pooled slot, which nobody but this library uses, into trash. That it is gone already is no
// error.
Error discard_folder(Store& store, Place place, const std::string& name);

}  // namespace microvm
