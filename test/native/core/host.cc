#include "host.h"

#include <sys/stat.h>

#include "check.h"
#include "files.h"

namespace core_test {

using microvm::CloneStatus;
using microvm::Rung;

Host::Host() {
  CHECK(mkdir(clones().c_str(), 0755) == 0);
  write_sparse(template_path(), 2 * kMiB, {{0, noise(300 * kKiB)}, {kMiB, noise(4096, 2)}});
  CHECK_OK(microvm::ManagedFolder::open(clones(), &managed));
  CHECK_OK(microvm::Source::open(template_path(), &source, &info));
}

std::string Host::template_path() const { return folder() + "/template"; }
std::string Host::clones() const { return folder() + "/clones"; }

microvm::Error clone_slot(const microvm::Ref<microvm::ManagedFolder>& managed,
                          const microvm::Ref<microvm::Source>& source, const Plan& plan, bool publish,
                          microvm::CloneOutcome* outcome) {
  const microvm::Ref<microvm::SharedPlan> shared(new microvm::SharedPlan(plan));
  return microvm::clone_slot(managed, source, shared, {plan.slot, plan.raw_id, plan.ready}, publish, outcome);
}

microvm::Error stage_slot(const microvm::Ref<microvm::ManagedFolder>& managed,
                          const microvm::Ref<microvm::Source>& source, const Plan& plan,
                          microvm::CloneOutcome* outcome) {
  return microvm::stage_slot(managed, source, microvm::Ref<microvm::SharedPlan>(new microvm::SharedPlan(plan)),
                             outcome);
}

unsigned bits(Rung rung) { return static_cast<unsigned>(rung); }

unsigned Host::independent_rungs() const { return bits(Rung::kReflink) | bits(Rung::kCopy); }

Plan Host::plan(const std::string& name, unsigned rungs) const {
  Plan plan;
  plan.slot = name;
  plan.sidecars = {{microvm::kStamp, kDigest}};
  plan.expected = info.identity;
  plan.template_path = template_path();
  plan.template_expected = info.identity;
  plan.rungs = rungs;
  return plan;
}

CloneStatus Host::clone(const Plan& plan, microvm::CloneOutcome* outcome) const {
  CHECK_OK(core_test::clone_slot(managed, source, plan, true, outcome));
  if (outcome->status != CloneStatus::kCopyNeeded) return outcome->status;
  for (bool done = false; !done;) CHECK_OK(outcome->staged->copy_step(100'000, &done));
  CloneStatus status = CloneStatus::kStaged;
  CHECK_OK(outcome->staged->publish(microvm::Place::kTop, plan.slot, plan.expected.size, plan.sidecars, &status));
  return status;
}

void Host::clone(const std::string& name) const {
  microvm::CloneOutcome outcome;
  CHECK(clone(plan(name, independent_rungs()), &outcome) == CloneStatus::kCreated);
}

microvm::SlotState Host::state(const std::string& name) const {
  microvm::SlotState state;
  CHECK_OK(microvm::read_slot(*managed, name, microvm::Look::kAll, &state));
  return state;
}

std::vector<std::string> Host::names(const std::string& folder) { return names_in(folder); }

}  // namespace core_test
