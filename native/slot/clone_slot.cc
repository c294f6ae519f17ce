#include "slot/clone_slot.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "system/file.h"
#include "system/rename.h"

namespace microvm {
namespace {

// What a path names; *found is false where there is nothing.
Error look_at(const std::string& path, FileInfo* info, bool* found) {
  Error error = stat_at(AT_FDCWD, path.c_str(), Follow::kYes, path, info);
  *found = error.ok();
  return error.is(ENOENT) || error.is(ENOTDIR) ? Error() : error;
}

// Whether the template's path still names the file whose digest is known, in the state that it was hashed in.
Error template_unchanged(const SlotPlan& plan, bool* unchanged) {
  FileInfo info;
  Error error = look_at(plan.template_path, &info, unchanged);
  *unchanged = *unchanged && info.identity.unchanged(plan.template_expected);
  return error;
}

Error siblings_unchanged(const SlotPlan& plan, bool* unchanged) {
  *unchanged = true;
  for (const ExpectedFile& file : plan.siblings) {
    FileInfo info;
    Error error = look_at(file.path, &info, unchanged);
    // With the ctime: a second name must not hide that somebody wrote to it.
    *unchanged = *unchanged && info.identity.unchanged(file.identity);
    if (!*unchanged) return error;
  }
  return {};
}

// The stamp of a slot with a raw id says so: see slot_state.h.
Error set_raw_id_bit(int folder_fd, const std::string& path) {
  Fd stamp;
  FileInfo info;
  Error error = open_file_at(folder_fd, kStamp, join(path, kStamp), &stamp);
  if (error.ok()) error = stat_fd(stamp.get(), join(path, kStamp), &info);
  if (!error.ok()) return error;
  if (retry_eintr([&] { return fchmod(stamp.get(), (info.mode & 07777) | kStampOfRawId); }) < 0) {
    return Error::last("fchmod", join(path, kStamp));
  }
  return {};
}

// A ready slot that needs a file with its raw id gets it in this session's folder, where nobody else can take the slot
// meanwhile. The raw id is flushed: the stamp may have reached the disk long ago, without its bit.
Error take_and_name(ManagedFolder& managed, const SlotName& name, bool durable, bool* taken_out) {
  const std::string taken = managed.next_name();
  const std::string path = join(managed.session_path(), taken);
  Fd folder;
  Error error = rename_folder_to_free(
      {managed.place_fd(Place::kPool), name.ready.c_str(), join(managed.place_path(Place::kPool), name.ready)},
      {managed.session_fd(), taken.c_str(), path});
  *taken_out = error.ok();
  if (!error.ok()) return error;
  error = open_folder_at(managed.session_fd(), taken.c_str(), path, &folder);
  if (error.ok()) error = set_raw_id_bit(folder.get(), path);
  if (error.ok()) error = write_small_file(folder.get(), kRawId, name.raw_id, true, join(path, kRawId));
  if (error.ok() && durable) error = flush(folder.get(), path);
  if (error.ok()) error = managed.put_back(taken, Place::kTop, name.slot.c_str());
  if (!error.ok()) (void)managed.to_trash(taken).ok();
  return error;
}

// Takes the ready slot from the pool. Another process may have taken it already, and one that cannot be taken (it is
// immutable, or another user's) must not keep the VM from a slot that is made for it.
Error take_from_pool(ManagedFolder& managed, const SlotName& name, bool durable, CloneStatus* status, bool* taken) {
  if (name.ready.empty()) return {};
  bool taken_out = false;
  Error error = !name.raw_id.empty()
                    ? take_and_name(managed, name, durable, &taken_out)
                    : rename_folder_to_free({managed.place_fd(Place::kPool), name.ready.c_str(),
                                             join(managed.place_path(Place::kPool), name.ready)},
                                            {managed.root_fd(), name.slot.c_str(), managed.slot_path(name.slot)});
  if (!error.ok() && !error.is(EEXIST)) return taken_out ? error : Error();
  *taken = true;
  *status = error.is(EEXIST) ? CloneStatus::kExists : CloneStatus::kCreated;
  return error.ok() && durable ? flush(managed.root_fd(), managed.root_path()).after_change() : Error();
}

// kExists if something has the slot's name.
Error look_for_slot(const ManagedFolder& managed, const SlotName& name, CloneOutcome* outcome) {
  Error error = read_slot(managed, name.slot, Look::kAll, &outcome->existing);
  if (!error.ok()) return error;
  if (outcome->existing.kind != SlotState::Kind::kAbsent) outcome->status = CloneStatus::kExists;
  return {};
}

// When a try without a look has failed: an existing slot is better than the failure, or than a copy that takes long.
Error prefer_existing(const ManagedFolder& managed, const SlotName& name, Error failure, CloneOutcome* outcome) {
  Error error = look_for_slot(managed, name, outcome);
  const bool exists = error.ok() && outcome->existing.kind != SlotState::Kind::kAbsent;
  if (!exists) return failure.ok() ? error : failure;
  if (outcome->staged) outcome->staged->discard();
  outcome->staged = Ref<StagedSlot>();
  return {};
}

Error publish_staged(const SlotPlan& plan, const SlotName& name, CloneOutcome* outcome) {
  Ref<StagedSlot> staged = std::move(outcome->staged);
  std::vector<Sidecar> sidecars = plan.sidecars;
  if (!name.raw_id.empty()) sidecars.push_back({kRawId, name.raw_id});
  Error error = staged->publish(Place::kTop, name.slot, plan.expected.size, sidecars, &outcome->status);
  outcome->source_now = staged->source_now();
  return error;
}

// A look at the name avoids useless work where slots exist. But it waits for the folder's lock, which the renames of
// other clones hold: a reflink goes without it as long as names are free. The rename in the end fails if one is taken.
Error build_slot(const Ref<ManagedFolder>& managed, const Ref<Source>& source, const Ref<SharedPlan>& plan,
                 const SlotName& name, bool publish, CloneOutcome* outcome) {
  const bool looks = !publish || !name.raw_id.empty() || !managed->expects_free_reflink();
  if (looks) {
    Error error = look_for_slot(*managed, name, outcome);
    if (!error.ok() || outcome->status == CloneStatus::kExists) return error;
  }
  if (!name.raw_id.empty()) {
    Error error = take_from_pool(*managed, name, plan->get().durable, &outcome->status, &outcome->pooled);
    if (!error.ok() || outcome->pooled) return error;
  }
  Error error = stage_slot(managed, source, plan, outcome);
  const bool staged = error.ok() && outcome->status == CloneStatus::kStaged;
  if (!looks && (!staged || outcome->strategy != Rung::kReflink)) {
    error = prefer_existing(*managed, name, error, outcome);
    if (outcome->status == CloneStatus::kExists) return error;
  }
  if (!staged) return error;
  if (!publish) {
    outcome->staged->hand_over();
    return {};
  }
  error = publish_staged(plan->get(), name, outcome);
  // A slot that was made stays made, whatever its flush says.
  const bool failed = !error.ok() && outcome->status != CloneStatus::kCreated;
  return failed && !looks ? prefer_existing(*managed, name, error, outcome) : error;
}

}  // namespace

Error clone_slot(const Ref<ManagedFolder>& managed, const Ref<Source>& source, const Ref<SharedPlan>& plan,
                 const SlotName& name, bool publish, CloneOutcome* outcome) {
  outcome->status = CloneStatus::kTemplateChanged;
  bool unchanged = false;
  Error error = template_unchanged(plan->get(), &unchanged);
  if (!error.ok() || !unchanged) return error;
  error = managed->check_current();
  if (!error.ok()) return error;
  // Renaming a ready slot fails if the name is taken, so it needs no look.
  if (name.raw_id.empty())
    error = take_from_pool(*managed, name, plan->get().durable, &outcome->status, &outcome->pooled);
  if (error.ok() && !outcome->pooled) {
    error = build_slot(managed, source, plan, name, publish, outcome);
    const bool created = error.ok() && !outcome->pooled && outcome->status == CloneStatus::kCreated;
    managed->expect_free_reflink(created && outcome->strategy == Rung::kReflink);
  }
  const bool has_looked = outcome->existing.kind != SlotState::Kind::kAbsent;
  if (error.ok() && outcome->status == CloneStatus::kExists && !has_looked)
    error = look_for_slot(*managed, name, outcome);
  return error;
}

Error clone_file(const Ref<ManagedFolder>& managed, const Ref<SharedPlan>& plan, const SlotName& name,
                 CloneOutcome* outcome) {
  outcome->status = CloneStatus::kTemplateChanged;
  Ref<Source> source;
  FileInfo info;
  Error error = Source::open(plan->get().template_path, &source, &info);
  if (error.is(ENOENT) || error.is(ENOTDIR) || error.is(EINVAL)) return {};
  if (!error.ok() || !info.identity.same_state(plan->get().expected)) return error;
  bool unchanged = false;
  error = siblings_unchanged(plan->get(), &unchanged);
  if (!error.ok() || !unchanged) return error;
  return clone_slot(managed, source, plan, name, true, outcome);
}

Error stage_slot(const Ref<ManagedFolder>& managed, const Ref<Source>& source, const Ref<SharedPlan>& plan,
                 CloneOutcome* outcome) {
  Ref<StagedSlot> staged(new StagedSlot(managed, source, plan));
  Error error = staged->build(&outcome->status);
  outcome->strategy = staged->strategy();
  outcome->attempts = staged->attempts();
  if (!error.ok() || outcome->status == CloneStatus::kSharedInode) {
    staged->discard();
    return error;
  }
  outcome->staged = std::move(staged);
  return {};
}

}  // namespace microvm
