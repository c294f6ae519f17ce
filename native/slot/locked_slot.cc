#include "slot/locked_slot.h"

#include <unistd.h>

#include "system/file.h"
#include "system/lease.h"
#include "system/lock.h"
#include "system/rename.h"

namespace microvm {

Error LockedSlot::open(const Ref<ManagedFolder>& managed, const std::string& slot, Ref<LockedSlot>* out) {
  Ref<LockedSlot> locked(new LockedSlot(managed, slot));
  Error error = open_folder_at(managed->clones_fd(), slot.c_str(), managed->slot_path(slot), &locked->folder_);
  if (error.ok()) error = try_lock(locked->folder_.get(), managed->slot_path(slot));
  if (!error.ok()) return error;
  bool there = false;
  error = locked->still_there(&there);
  if (!error.ok()) return error;
  if (!there) return Error::of(ENOENT, "open", managed->slot_path(slot));
  *out = locked;
  return {};
}

Error LockedSlot::still_there(bool* there) const {
  FileInfo ours;
  FileInfo at_path;
  Error error = stat_fd(folder_.get(), managed_->slot_path(slot_), &ours);
  if (!error.ok()) return error;
  error = stat_at(managed_->clones_fd(), slot_.c_str(), Follow::kNo, managed_->slot_path(slot_), &at_path);
  *there = error.ok() && at_path.identity.same_file(ours.identity);
  return error.is(ENOENT) ? Error() : error;
}

std::string LockedSlot::path_of(const char* file) const { return join(managed_->slot_path(slot_), file); }

Error LockedSlot::open_image(Ref<Source>* image, FileInfo* info) {
  return Source::open_at(folder_.get(), kImage, path_of(kImage), image, info);
}

Error LockedSlot::finish_grow() {
  const int fd = folder_.get();
  SmallFile pending;
  FileInfo image;
  Error error = read_slot_file(fd, managed_->slot_path(slot_), kNewSizeStamp, &pending);
  if (!error.ok() || pending.state == SmallFile::State::kAbsent) return error;
  error = stat_at(fd, kImage, Follow::kNo, path_of(kImage), &image);
  const bool has_image = error.ok();  // a power cut on btrfs can bring back the stamp without it
  if (!has_image && !error.is(ENOENT)) return error;
  if (has_image && pending.state == SmallFile::State::kPresent && pending.contents == decimal(image.identity.size)) {
    return rename_over(fd, kNewSizeStamp, fd, kSizeStamp, path_of(kNewSizeStamp), path_of(kSizeStamp));
  }
  return remove_file_at(fd, kNewSizeStamp, path_of(kNewSizeStamp));
}

Error LockedSlot::replace(StagedSlot& staged, const Source& image, const Identity& expected,
                          const std::string& size_stamp, bool refuse_in_use, Replaced* replaced) {
  Error error = try_replace(staged, image, expected, size_stamp, refuse_in_use, replaced);
  if (!error.is(ENOENT)) return error;
  // In a folder that was released meanwhile, and emptied, nothing can be made any more.
  bool there = true;
  Error look = still_there(&there);
  if (!look.ok() || there) return error;
  *replaced = Replaced::kReleased;
  return {};
}

Error LockedSlot::try_replace(StagedSlot& staged, const Source& image, const Identity& expected,
                              const std::string& size_stamp, bool refuse_in_use, Replaced* replaced) {
  const int fd = folder_.get();
  // Flushed in any case: what they take the place of may have been durable, and would be lost if a power cut left the
  // new names without their contents.
  Fd grown;
  Error error = staged.open_image(&grown);
  if (error.ok()) error = flush(grown.get(), staged.image_path());
  if (!error.ok()) return error;
  grown.reset();  // an image that appears while it is open here would look in use to others
  if (!size_stamp.empty()) {
    error = write_small_file(fd, kNewSizeStamp, size_stamp, true, path_of(kNewSizeStamp));
    if (!error.ok() && !error.is(EEXIST)) unlinkat(fd, kNewSizeStamp, 0);  // made, but not written: a full disk
    if (!error.ok()) return error;
  }

  // As late as can be: nobody has the image open, it is the one that was cloned, and the slot was not released
  // meanwhile.
  FileInfo now;
  error = stat_at(fd, kImage, Follow::kNo, path_of(kImage), &now);
  bool there = false;
  if (error.ok()) error = still_there(&there);
  *replaced = Replaced::kDone;
  if (error.ok() && !there) {
    *replaced = Replaced::kReleased;
  } else if (error.ok() && !now.identity.same_state(expected)) {
    *replaced = Replaced::kImageChanged;
  } else if (error.ok() && refuse_in_use && open_elsewhere(image.fd()) == Openness::kOpen) {
    *replaced = Replaced::kInUse;
  }
  bool exchanged = false;
  if (error.ok() && *replaced == Replaced::kDone) error = staged.swap_image(fd, path_of(kImage), &exchanged);
  if (!error.ok() || *replaced != Replaced::kDone) {
    if (!size_stamp.empty()) unlinkat(fd, kNewSizeStamp, 0);
    return error;
  }

  if (!size_stamp.empty()) {
    error = rename_over(fd, kNewSizeStamp, fd, kSizeStamp, path_of(kNewSizeStamp), path_of(kSizeStamp));
    // A call that fails leaves the slot as it was. If it cannot, the new stamp stays, and whoever looks next settles
    // it.
    if (!error.ok() && exchanged && staged.swap_image(fd, path_of(kImage), &exchanged).ok()) {
      unlinkat(fd, kNewSizeStamp, 0);
    }
  }
  if (error.ok() && staged.durable()) error = flush(fd, managed_->slot_path(slot_));
  return error;
}

}  // namespace microvm
