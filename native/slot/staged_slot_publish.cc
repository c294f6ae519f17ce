// Making a staged folder appear under its name.
#include "slot/staged_slot.h"
#include "system/file.h"
#include "system/rename.h"

namespace microvm {

Error StagedSlot::source_unchanged(bool* unchanged) {
  FileInfo info;
  Error error = stat_fd(source_->fd(), source_->path(), &info);
  if (!error.ok()) return error;
  source_now_ = info.identity;
  // FUSE reports an older ctime for a while, so that a link of this very trip may not be accounted for (own_links.h).
  // The template was looked at just before.
  *unchanged =
      strategy_ == Rung::kHardlink ? info.identity.same_state(plan_.expected) : info.identity.unchanged(plan_.expected);
  return {};
}

Error StagedSlot::check_image(uint64_t size) {
  FileInfo info;
  Error error = stat_image(&info);
  if (error.ok() && (!info.is_regular() || info.identity.size != size)) return Error::of(EIO, "statx", image_path());
  return error;
}

Error StagedSlot::write_sidecars(const std::vector<Sidecar>& sidecars) {
  bool has_raw_id = false;
  for (const Sidecar& file : sidecars) has_raw_id |= file.name == kRawId;
  for (const Sidecar& file : sidecars) {
    Error error = write_sidecar(file, has_raw_id && file.name == kStamp ? kStampOfRawId : 0);
    if (!error.ok()) return error;
  }
  // The other names of the image may lie in folders where nobody looks for them later.
  if (strategy_ == Rung::kHardlink) return write_sidecar({kLinked, decimal(plan_.expected.inode)}, 0);
  return {};
}

Error StagedSlot::write_sidecar(const Sidecar& file, unsigned mode_bits) {
  return write_small_file(managed_->session_fd(), inside(file.name).c_str(), file.contents, plan_.durable,
                          join(path_, file.name), kSmallFileMode | mode_bits, modes_restricted_);
}

// A copy, unless its sidecars say that it is not flushed. Whoever makes a sealed image has flushed it.
bool StagedSlot::needs_flush(Place place, const std::vector<Sidecar>& sidecars) const {
  bool is_unsettled = false;
  for (const Sidecar& file : sidecars) is_unsettled |= file.name == kUnsettled;
  return strategy_ == Rung::kCopy && place != Place::kSealed && !is_unsettled;
}

Error StagedSlot::publish(Place place, const std::string& name, uint64_t size, const std::vector<Sidecar>& sidecars,
                          CloneStatus* status) {
  *status = CloneStatus::kSourceChanged;
  Error error = still_staged();
  if (!error.ok()) return error;
  // The length of an image that is still open here was checked when it was made, and nobody else has had it since.
  if (!image_) error = check_image(size);
  if (error.ok()) error = write_sidecars(sidecars);
  if (error.ok() && (plan_.durable || needs_flush(place, sidecars))) error = flush_image();
  if (error.ok() && plan_.durable) {
    Fd folder;
    error = open_folder_at(managed_->session_fd(), name_.c_str(), path_, &folder);
    if (error.ok()) error = flush(folder.get(), path_);
  }
  bool unchanged = false;
  if (error.ok()) error = source_unchanged(&unchanged);
  image_.reset();  // a slot that appears while this process has its image open would look in use to others
  if (!error.ok() || !unchanged) {
    discard();
    return error;
  }

  error = rename_folder_to_free({managed_->session_fd(), name_.c_str(), path_},
                                {managed_->place_fd(place), name.c_str(), join(managed_->place_path(place), name)});
  if (!error.ok()) {
    discard();
    *status = CloneStatus::kExists;
    return error.is(EEXIST) ? Error() : error;
  }
  name_.clear();  // no longer ours to remove
  *status = CloneStatus::kCreated;
  if (!plan_.durable) return {};
  // The folder has its name now, and another process may have been given it: it stays, whatever the flush says.
  return flush(managed_->place_fd(place), managed_->place_path(place)).after_change();
}

}  // namespace microvm
