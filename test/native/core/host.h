// A template and a folder of clones, as src/ hands them to the core.
#pragma once

#include <string>
#include <vector>

#include "image/source.h"
#include "slot/clone_slot.h"
#include "slot/managed_folder.h"
#include "slot/slot_state.h"

namespace core_test {

inline const std::string kDigest(64, 'a');

// A plan and the name of one slot, in one.
struct Plan : microvm::SlotPlan {
  std::string slot;
  std::string raw_id;
  std::string ready;
};

microvm::Error clone_slot(const microvm::Ref<microvm::ManagedFolder>& managed,
                          const microvm::Ref<microvm::Source>& source, const Plan& plan, bool publish,
                          microvm::CloneOutcome* outcome);
microvm::Error stage_slot(const microvm::Ref<microvm::ManagedFolder>& managed,
                          const microvm::Ref<microvm::Source>& source, const Plan& plan,
                          microvm::CloneOutcome* outcome);

class Host {
 public:
  Host();

  std::string template_path() const;
  std::string clones() const;
  std::string slot(const std::string& name) const { return clones() + '/' + name; }
  std::string image(const std::string& name) const { return slot(name) + '/' + microvm::kImage; }
  std::string stamp(const std::string& name) const { return slot(name) + '/' + microvm::kStamp; }

  // A clone of the template as it is now, by these rungs.
  Plan plan(const std::string& name, unsigned rungs) const;
  // Reflink where that works, a copy elsewhere.
  unsigned independent_rungs() const;

  // Clones to the end, copying if need be, and says how it ended.
  microvm::CloneStatus clone(const Plan& plan, microvm::CloneOutcome* outcome) const;
  void clone(const std::string& name) const;
  microvm::SlotState state(const std::string& name) const;

  // What staging and trash hold.
  std::vector<std::string> staged() const { return names(managed->session_path()); }
  std::vector<std::string> trash() const { return names(clones() + "/.microvm-rootfs/trash"); }

  microvm::Ref<microvm::ManagedFolder> managed;
  microvm::Ref<microvm::Source> source;
  microvm::FileInfo info;

 private:
  static std::vector<std::string> names(const std::string& folder);
};

unsigned bits(microvm::Rung rung);

}  // namespace core_test
