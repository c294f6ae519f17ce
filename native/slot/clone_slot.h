// A whole clone, to be made in one trip to another thread.
#pragma once

#include <string>
#include <vector>

#include "slot/slot_state.h"
#include "slot/staged_slot.h"
#include "system/error.h"
#include "system/ref.h"

namespace microvm {

struct SlotName {
  std::string slot;
  std::string raw_id;  // if sanitising changed it
  std::string ready;   // a ready slot in the pool that serves
};

struct CloneOutcome {
  CloneStatus status = CloneStatus::kExists;
  SlotState existing;      // kExists
  Ref<StagedSlot> staged;  // kStaged, kCopyNeeded
  Rung strategy = Rung::kCopy;
  bool pooled = false;
  std::vector<Attempt> attempts;
  Identity source_now;
};

// The whole clone in one trip: compare the template, take a slot from the pool or build one, publish it.
Error clone_slot(const Ref<ManagedFolder>& managed, const Ref<Source>& source, const Ref<SharedPlan>& plan,
                 const SlotName& name, bool publish, CloneOutcome* outcome);

// The same from a file that is opened on the way, at the path that the plan names as the template's: kTemplateChanged
// if it or a sibling is gone, or not what the plan expects.
Error clone_file(const Ref<ManagedFolder>& managed, const Ref<SharedPlan>& plan, const SlotName& name,
                 CloneOutcome* outcome);

// Only the image, in staging: to be grown, to be sealed, or to take the place of another.
Error stage_slot(const Ref<ManagedFolder>& managed, const Ref<Source>& source, const Ref<SharedPlan>& plan,
                 CloneOutcome* outcome);

}  // namespace microvm
