#include "slot/locked_slot.h"

#include <unistd.h>

#include "image/ext4.h"
#include "system/file.h"
#include "system/lease.h"
#include "system/lock.h"
#include "system/rename.h"

namespace microvm {

Error LockedSlot::open(const Ref<ManagedFolder>& managed, const std::string& slot, bool heed_older,
                       Ref<LockedSlot>* out) {
  Ref<LockedSlot> locked(new LockedSlot(managed, slot));
  Error error = open_folder_at(managed->root_fd(), slot.c_str(), managed->slot_path(slot), &locked->folder_);
  bool free = false;
  if (error.ok()) error = locked->lock_.take(*managed, slot, NameLock::For::kReplace, &free);
  if (!error.ok()) return error;
  if (!free) return Error::of(EWOULDBLOCK, "fcntl", managed->slot_path(slot));
  error = try_lock(locked->folder_.get(), managed->slot_path(slot));
  if (!error.ok() && heed_older) return error;
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
  error = stat_at(managed_->root_fd(), slot_.c_str(), Follow::kNo, managed_->slot_path(slot_), &at_path);
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
  const bool has_image = error.ok();  // a power cut on btrfs can bring back the stamp without the image
  if (!has_image && !error.is(ENOENT)) return error;
  bool grown =
      has_image && pending.state == SmallFile::State::kPresent && pending.contents == decimal(image.identity.size);
  // An image that is not yet the grown one can have that length: what grew it in place before was cut off.
  if (grown && image.is_regular()) {
    Fd file;
    error = open_file_at(fd, kImage, path_of(kImage), &file);
    if (error.ok()) error = fills_image(file.get(), path_of(kImage), image.identity.size, &grown);
    if (!error.ok()) return error;
  }
  unlinkat(fd, kNewImage, 0);
  if (grown) return name_size_stamp();
  return remove_file_at(fd, kNewSizeStamp, path_of(kNewSizeStamp));
}

Error LockedSlot::replace(StagedSlot& staged, const Replacement& replacement, Replaced* replaced) {
  Error error = try_replace(staged, replacement, replaced);
  if (!error.is(ENOENT)) return error;
  // In a folder that was released and emptied meanwhile nothing can be made.
  bool there = true;
  Error look = still_there(&there);
  if (!look.ok() || there) return error;
  *replaced = Replaced::kReleased;
  return {};
}

Error LockedSlot::try_replace(StagedSlot& staged, const Replacement& replacement, Replaced* replaced) {
  const std::string& size_stamp = replacement.size_stamp;
  FileInfo grown;
  Error error = flush_staged(staged, &grown);
  if (error.ok() && !size_stamp.empty()) error = write_new_size_stamp(size_stamp);
  if (!error.ok()) return error;
  // Directly before the swap, so that as little as possible can happen in between.
  error = check_replaceable(replacement, replaced);
  bool exchanged = false;
  if (error.ok() && *replaced == Replaced::kDone) {
    error = staged.swap_image(folder_.get(), path_of(kImage), &exchanged);
  }
  if (!error.ok() || *replaced != Replaced::kDone) {
    if (!size_stamp.empty()) unlinkat(folder_.get(), kNewSizeStamp, 0);
    return error;
  }
  if (!size_stamp.empty()) error = name_size_stamp();
  if (!error.ok()) {
    if (exchanged) undo_swap(staged, grown.identity);
    return error;
  }
  unlinkat(folder_.get(), kLinked, 0);  // of the image before: the inode number will be given again
  if (!staged.durable()) return {};
  return flush(folder_.get(), managed_->slot_path(slot_)).after_change();
}

// Flushed in any case: the image that it replaces may have been durable, and a power cut that left the new name without
// its contents would lose it.
Error LockedSlot::flush_staged(const StagedSlot& staged, FileInfo* info) {
  Error error = staged.flush_image();
  return error.ok() ? staged.stat_image(info) : error;
}

Error LockedSlot::write_new_size_stamp(const std::string& size_stamp) {
  Error error = write_small_file(folder_.get(), kNewSizeStamp, size_stamp, true, path_of(kNewSizeStamp));
  if (!error.ok() && !error.is(EEXIST))
    unlinkat(folder_.get(), kNewSizeStamp, 0);  // a full disk: made, but not written
  return error;
}

Error LockedSlot::check_replaceable(const Replacement& replacement, Replaced* replaced) const {
  FileInfo now;
  bool there = false;
  Error error = stat_at(folder_.get(), kImage, Follow::kNo, path_of(kImage), &now);
  if (error.ok()) error = still_there(&there);
  if (!error.ok()) return error;
  const Openness holders = replacement.refuse_in_use ? open_elsewhere(replacement.image->fd()) : Openness::kFree;
  *replaced = !there                                           ? Replaced::kReleased
              : !now.identity.same_state(replacement.expected) ? Replaced::kImageChanged
              : holders == Openness::kOpen                     ? Replaced::kInUse
                                                               : Replaced::kDone;
  return require_known(holders, path_of(kImage));
}

Error LockedSlot::name_size_stamp() {
  const int fd = folder_.get();
  return rename_over({fd, kNewSizeStamp, path_of(kNewSizeStamp)}, {fd, kSizeStamp, path_of(kSizeStamp)});
}

// A call that fails leaves the slot as it was, unless the slot's image is no longer the one that this call put there.
// Then the new size stamp stays, and whoever looks at the slot next finishes the grow.
void LockedSlot::undo_swap(StagedSlot& staged, const Identity& grown) {
  FileInfo now;
  bool exchanged = false;
  if (!stat_at(folder_.get(), kImage, Follow::kNo, path_of(kImage), &now).ok()) return;
  if (!now.identity.same_file(grown)) return;
  if (staged.swap_image(folder_.get(), path_of(kImage), &exchanged).ok()) unlinkat(folder_.get(), kNewSizeStamp, 0);
}

}  // namespace microvm
