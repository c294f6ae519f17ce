#include "slot/release.h"

#include "slot/slot_state.h"
#include "system/fd.h"
#include "system/file.h"
#include "system/identity.h"
#include "system/lease.h"
#include "system/tree.h"

namespace microvm {
namespace {

// A folder that holds none of a slot's files and yet is not empty is somebody else's.
Error is_slot(int folder_fd, const std::string& path, bool* is) {
  FolderReader reader(folder_fd, path);
  bool empty = true;
  *is = false;
  while (const char* name = reader.next()) {
    empty = false;
    for (const char* ours : {kImage, kStamp, kSizeStamp, kNewSizeStamp, kRawId}) {
      if (std::string_view(name) == ours) *is = true;
    }
  }
  if (empty) *is = true;
  return reader.error();
}

Error image_in_use(int folder_fd, const std::string& path, bool* in_use) {
  Fd image;
  Error error = open_file_at(folder_fd, kImage, path, &image);
  // Whoever has a lease on it, which makes opening it fail, has it open.
  *in_use = error.is(EWOULDBLOCK) || (error.ok() && open_elsewhere(image.get()) == Openness::kOpen);
  // No image, or none that could be a disk: nobody uses it.
  const bool none = error.is(ENOENT) || error.is(ELOOP) || error.is(ENXIO);
  return none || *in_use ? Error() : error;
}

}  // namespace

Error release_slot(ManagedFolder& managed, const ReleaseRequest& request, ReleaseStatus* status,
                   std::string* raw_id_found) {
  const std::string path = managed.slot_path(request.slot);
  Error error = managed.check_current();
  if (!error.ok()) return error;
  for (;;) {
    Fd folder;
    error = open_folder_at(managed.clones_fd(), request.slot.c_str(), path, &folder);
    *status = ReleaseStatus::kAbsent;
    if (error.is(ENOENT)) return request.durable ? flush(managed.clones_fd(), managed.clones_path()) : Error();
    *status = ReleaseStatus::kForeign;
    if (error.is(ENOTDIR) || error.is(ELOOP)) return {};
    if (!error.ok()) return error;
    bool ours = false;
    error = is_slot(folder.get(), path, &ours);
    if (!error.ok() || !ours) return error;

    FileInfo looked_at;
    error = stat_fd(folder.get(), path, &looked_at);
    if (!error.ok()) return error;
    SmallFile raw_id;
    error = read_slot_file(folder.get(), path, kRawId, &raw_id);
    if (!error.ok()) return error;
    *raw_id_found = raw_id.contents;
    if (request.torn) {
      *status = ReleaseStatus::kAbsent;
      if (!looked_at.identity.identical(request.expected)) return {};
    } else {
      *status = ReleaseStatus::kTorn;
      const bool readable = raw_id.state == SmallFile::State::kPresent && !raw_id.contents.empty();
      if (raw_id.state != SmallFile::State::kAbsent && !readable) return {};
      *status = ReleaseStatus::kCollision;
      // btrfs can bring back a folder without some of its files. One with neither stamp nor raw id is any id's to
      // release: a slot appears with all that it has.
      SmallFile stamp;
      error = read_slot_file(folder.get(), path, kStamp, &stamp);
      if (!error.ok()) return error;
      const bool nobodys = raw_id.state == SmallFile::State::kAbsent && stamp.state == SmallFile::State::kAbsent;
      if (!nobodys && raw_id.contents != request.raw_id) return {};
    }
    if (request.refuse_in_use) {
      bool in_use = false;
      *status = ReleaseStatus::kInUse;
      error = image_in_use(folder.get(), join(path, kImage), &in_use);
      if (!error.ok() || in_use) return error;
    }

    FileInfo got;
    std::string taken;
    error = managed.take_out(Place::kSlots, request.slot.c_str(), &taken, &got);
    if (error.is(ENOENT)) continue;  // released by another at the same time
    if (!error.ok()) return error;
    // Between the look and the rename the slot may have been released and made anew for another VM.
    if (!got.identity.same_file(looked_at.identity)) {
      error = managed.put_back(taken, Place::kSlots, request.slot.c_str());
      // Its own VM has a newer slot by now, so this one was released as well.
      if (error.is(EEXIST)) error = managed.to_trash(taken);
      if (!error.ok()) return error;
      continue;
    }
    error = managed.to_trash(taken);
    if (!error.ok()) {
      (void)managed.put_back(taken, Place::kSlots, request.slot.c_str()).ok();
      return error;
    }
    *status = ReleaseStatus::kReleased;
    return request.durable ? flush(managed.clones_fd(), managed.clones_path()) : Error();
  }
}

Error discard_folder(ManagedFolder& managed, Place place, const std::string& name) {
  std::string taken;
  FileInfo info;
  Error error = managed.take_out(place, name.c_str(), &taken, &info);
  if (error.is(ENOENT)) return {};
  if (!error.ok()) return error;
  error = managed.to_trash(taken);
  if (!error.ok()) (void)managed.put_back(taken, place, name.c_str()).ok();
  return error;
}

}  // namespace microvm
