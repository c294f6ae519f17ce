#include "staged_slot.h"

#include <fcntl.h>
#include <unistd.h>

#include "errno_policy.h"
#include "file.h"
#include "reflink.h"
#include "release.h"
#include "rename.h"
#include "tree.h"

namespace microvm {

Error StagedSlot::build(CloneStatus* status) {
  name_ = store_->next_name();
  path_ = join(store_->session_path(), name_);
  Error error = make_new_folder(store_->session_fd(), name_.c_str(), 0755, path_);
  if (!error.ok()) return error;

  bool done = false;
  if ((plan_.rungs & static_cast<unsigned>(Rung::kReflink)) != 0) error = try_reflink(&done);
  if (error.ok() && !done && (plan_.rungs & static_cast<unsigned>(Rung::kHardlink)) != 0) {
    if (plan_.dress.empty()) {
      error = try_hardlink(&done);
    } else {
      bool possible = false;
      error = same_device(&possible);
      if (error.ok() && possible) {
        *status = CloneStatus::kSharedInode;
        return {};
      }
      attempts_.push_back({Rung::kHardlink, EXDEV});
    }
  }
  if (!error.ok()) return error;
  if (done) {
    *status = CloneStatus::kStaged;
    return {};
  }
  error = create_image();
  if (!error.ok()) return error;
  strategy_ = Rung::kCopy;
  if (plan_.packed) {
    pack_ =
        std::make_unique<PackedCopy>(source_->fd(), image_.get(), plan_.expected.size, source_->path(), image_path());
  } else {
    copy_ =
        std::make_unique<SparseCopy>(source_->fd(), image_.get(), plan_.expected.size, source_->path(), image_path());
  }
  *status = CloneStatus::kCopyNeeded;
  return {};
}

Error StagedSlot::create_image() {
  return create_file_at(store_->session_fd(), inside(kImage).c_str(), 0600, image_path(), &image_);
}

Error StagedSlot::open_image(Fd* image) const {
  Error error = still_staged();
  if (!error.ok()) return error;
  return open_file_at(store_->session_fd(), inside(kImage).c_str(), image_path(), image);
}

Error StagedSlot::swap_image(int folder_fd, std::string_view dest, bool* exchanged) {
  Error error = still_staged();
  if (!error.ok()) return error;
  error = exchange(store_->session_fd(), inside(kImage).c_str(), folder_fd, kImage, image_path(), dest);
  *exchanged = error.ok();
  if (!error.is(EINVAL) && !error.is(ENOSYS)) return error;
  return rename_over(store_->session_fd(), inside(kImage).c_str(), folder_fd, kImage, image_path(), dest);
}

Error StagedSlot::try_reflink(bool* done) {
  Error error = create_image();
  if (!error.ok()) return error;
  error = reflink(source_->fd(), image_.get(), plan_.expected.size, source_->path(), image_path());
  if (error.ok()) {
    FileInfo clone;
    error = stat_fd(image_.get(), image_path(), &clone);
    if (!error.ok()) return error;
    if (clone.identity.size == plan_.expected.size) {
      *done = true;
      strategy_ = Rung::kReflink;
      return dress_file(image_.get(), plan_.dress, image_path());
    }
  } else if (verdict_of(error.code) == Verdict::kStop) {
    return error;
  }
  attempts_.push_back({Rung::kReflink, error.code});
  image_.reset();
  return remove_file_at(store_->session_fd(), inside(kImage).c_str(), image_path());
}

Error StagedSlot::try_hardlink(bool* done) {
  if (retry_eintr([&] {
        return linkat(AT_FDCWD, source_->path().c_str(), store_->session_fd(), inside(kImage).c_str(),
                      AT_SYMLINK_FOLLOW);
      }) < 0) {
    Error error = Error::last("link", source_->path(), image_path());
    if (verdict_of(error.code) == Verdict::kStop) return error;
    attempts_.push_back({Rung::kHardlink, error.code});
    return {};
  }
  // The path may have been given to another file since it was looked at: source_unchanged() compares the open file
  // alone.
  FileInfo linked;
  Error error = stat_at(store_->session_fd(), inside(kImage).c_str(), Follow::kNo, image_path(), &linked);
  if (!error.ok()) return error;
  if (linked.identity.same_file(plan_.expected)) {
    *done = true;
    strategy_ = Rung::kHardlink;
    return {};
  }
  // On overlayfs linking a file of the lower layer copies it up first, which can give it another inode.
  attempts_.push_back({Rung::kHardlink, EXDEV});
  return remove_file_at(store_->session_fd(), inside(kImage).c_str(), image_path());
}

Error StagedSlot::same_device(bool* same) const {
  FileInfo folder;
  Error error = stat_fd(store_->session_fd(), store_->session_path(), &folder);
  *same = error.ok() && folder.identity.device == plan_.expected.device;
  return error;
}

Error StagedSlot::copy_step(uint64_t budget, bool* done) {
  if (!image_) return Error::of(EBADF, "open", image_path());  // discarded, or copied to the end already
  Error error = pack_ ? pack_->step(budget) : copy_->step(budget);
  if (!error.ok() || !(pack_ ? pack_->done() : copy_->done())) return error;
  error = pack_ ? pack_->finish(&sha256_) : copy_->finish();
  if (error.ok()) error = dress_file(image_.get(), plan_.dress, image_path());
  *done = error.ok();
  image_.reset();
  return error;
}

Error StagedSlot::source_unchanged(bool* unchanged) {
  FileInfo info;
  Error error = stat_fd(source_->fd(), source_->path(), &info);
  if (!error.ok()) return error;
  source_now_ = info.identity;
  *unchanged = info.identity.same_state(plan_.expected);
  return {};
}

Error StagedSlot::check_image(uint64_t size) {
  FileInfo info;
  Error error = stat_at(store_->session_fd(), inside(kImage).c_str(), Follow::kNo, image_path(), &info);
  if (error.ok() && (!info.is_regular() || info.identity.size != size)) return Error::of(EIO, "statx", image_path());
  return error;
}

Error StagedSlot::write_companions(const std::vector<Companion>& companions) {
  Error error;
  for (const Companion& file : companions) {
    // A raw id is always flushed. btrfs logs a file that somebody flushes, and not what else lies in its folder: a
    // stamp and an image that come back from a power cut without their raw id would be another id's slot.
    const bool flushed = plan_.durable || file.name == kRawId;
    error = write_small_file(store_->session_fd(), inside(file.name).c_str(), file.contents, flushed,
                             join(path_, file.name));
    if (!error.ok()) break;
  }
  return error;
}

Error StagedSlot::publish(Place place, const std::string& name, uint64_t size, const std::vector<Companion>& companions,
                          CloneStatus* status) {
  *status = CloneStatus::kSourceChanged;
  Error error = still_staged();
  if (!error.ok()) return error;
  // An image that is still open here has not been in anybody else's hands since its length was checked.
  if (!image_) error = check_image(size);
  if (error.ok()) error = write_companions(companions);
  if (error.ok() && plan_.durable) {
    Fd folder;
    if (!image_) error = open_image(&image_);
    if (error.ok()) error = flush(image_.get(), image_path());
    if (error.ok()) error = open_folder_at(store_->session_fd(), name_.c_str(), path_, &folder);
    if (error.ok()) error = flush(folder.get(), path_);
  }
  bool unchanged = false;
  if (error.ok()) error = source_unchanged(&unchanged);
  image_.reset();  // a slot that appears while its image is open here would look in use to others
  if (!error.ok() || !unchanged) {
    discard();
    return error;
  }

  error = rename_folder_to_free(store_->session_fd(), name_.c_str(), store_->place_fd(place), name.c_str(), path_,
                                join(store_->place_path(place), name));
  if (!error.ok()) {
    discard();
    *status = CloneStatus::kExists;
    return error.is(EEXIST) ? Error() : error;
  }
  name_.clear();  // no longer ours to remove
  *status = CloneStatus::kCreated;
  if (!plan_.durable) return {};
  error = flush(store_->place_fd(place), store_->place_path(place));
  // Not promised, so not there.
  if (!error.ok()) (void)discard_folder(*store_, place, name).ok();
  return error;
}

void StagedSlot::discard() {
  if (name_.empty()) return;
  copy_.reset();
  pack_.reset();
  image_.reset();
  // What cannot be removed now goes with the next sweep, which leaves the folder of a session that lives alone.
  uint64_t budget = UINT64_MAX;
  if (!remove_tree(store_->session_fd(), name_.c_str(), path_, &budget).ok()) (void)store_->to_trash(name_).ok();
  name_.clear();
}

namespace {

// Whether a path still names the file that a digest was computed of.
Error path_unchanged(const std::string& path, const Identity& expected, bool* unchanged) {
  FileInfo info;
  Error error = stat_at(AT_FDCWD, path.c_str(), Follow::kYes, path, &info);
  *unchanged = error.ok() && info.identity.same_state(expected);
  return error.is(ENOENT) || error.is(ENOTDIR) ? Error() : error;
}

// A pooled slot that needs a file with its raw id gets it where nobody else can take the slot meanwhile.
Error take_and_name(Store& store, const SlotName& name, bool durable) {
  std::string taken;
  FileInfo info;
  Fd folder;
  Error error = store.take_out(Place::kPool, name.ready.c_str(), &taken, &info);
  if (!error.ok()) return error;
  const std::string path = join(store.session_path(), taken);
  error = open_folder_at(store.session_fd(), taken.c_str(), path, &folder);
  if (error.ok()) error = write_small_file(folder.get(), kRawId, name.raw_id, true, join(path, kRawId));
  if (error.ok() && durable) error = flush(folder.get(), path);
  if (error.ok()) error = store.put_back(taken, Place::kSlots, name.slot.c_str());
  if (!error.ok()) (void)store.to_trash(taken).ok();
  return error;
}

// The ready slot from the pool, if it is still there: another process may be after the same.
Error take_from_pool(Store& store, const SlotName& name, bool durable, CloneStatus* status, bool* taken) {
  if (name.ready.empty()) return {};
  Error error = !name.raw_id.empty()
                    ? take_and_name(store, name, durable)
                    : rename_folder_to_free(store.place_fd(Place::kPool), name.ready.c_str(), store.clones_fd(),
                                            name.slot.c_str(), join(store.place_path(Place::kPool), name.ready),
                                            store.slot_path(name.slot));
  if (error.is(ENOENT)) return {};
  *taken = true;
  *status = error.is(EEXIST) ? CloneStatus::kExists : CloneStatus::kCreated;
  if (error.is(EEXIST)) return {};
  return error.ok() && durable ? flush(store.clones_fd(), store.clones_path()) : error;
}

}  // namespace

Error clone_slot(const Ref<Store>& store, const Ref<Source>& source, const Ref<SharedPlan>& shared_plan,
                 const SlotName& name, bool publish, CloneOutcome* outcome) {
  const SlotPlan& plan = shared_plan->get();
  outcome->status = CloneStatus::kTemplateChanged;
  bool unchanged = false;
  Error error = path_unchanged(plan.template_path, plan.template_expected, &unchanged);
  if (!error.ok() || !unchanged) return error;
  error = store->check_current();
  if (!error.ok()) return error;
  // Taking a ready slot tells on the way whether there is one of that name; all else would be made in vain.
  const bool told_by_rename = name.raw_id.empty();
  if (told_by_rename) error = take_from_pool(*store, name, plan.durable, &outcome->status, &outcome->pooled);
  if (!error.ok()) return error;
  if (!outcome->pooled) {
    error = read_slot(*store, name.slot, Look::kAll, &outcome->existing);
    if (!error.ok()) return error;
    outcome->status = CloneStatus::kExists;
    if (outcome->existing.kind != SlotState::Kind::kAbsent) return {};
    if (!told_by_rename) error = take_from_pool(*store, name, plan.durable, &outcome->status, &outcome->pooled);
    if (!error.ok()) return error;
  }
  if (!outcome->pooled) {
    error = stage_slot(store, source, shared_plan, outcome);
    if (!error.ok() || outcome->status != CloneStatus::kStaged) return error;
    if (!publish) {
      outcome->staged->hand_over();
      return {};
    }
    Ref<StagedSlot> staged = std::move(outcome->staged);
    std::vector<Companion> companions = plan.companions;
    if (!name.raw_id.empty()) companions.push_back({kRawId, name.raw_id});
    error = staged->publish(Place::kSlots, name.slot, plan.expected.size, companions, &outcome->status);
    outcome->source_now = staged->source_now();
  }
  if (error.ok() && outcome->status == CloneStatus::kExists)
    error = read_slot(*store, name.slot, Look::kAll, &outcome->existing);
  return error;
}

Error stage_slot(const Ref<Store>& store, const Ref<Source>& source, const Ref<SharedPlan>& plan,
                 CloneOutcome* outcome) {
  Ref<StagedSlot> staged(new StagedSlot(store, source, plan));
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
