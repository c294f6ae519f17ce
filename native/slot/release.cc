#include "slot/release.h"

#include "slot/slot_files.h"
#include "slot/slot_state.h"
#include "slot/spelling.h"
#include "slot/take_out.h"
#include "system/errno_policy.h"
#include "system/fd.h"
#include "system/file.h"
#include "system/lease.h"
#include "system/tree.h"

namespace microvm {
namespace {

// Each round is lost to another process that released the slot in the same instant.
constexpr int kRounds = 4;

struct FoundSlot {
  Fd folder;  // stays open, so that the kernel gives its inode to nobody else
  std::string path;
  Identity identity;
};

// A slot's folder is empty, or holds one of our files. Any other folder is somebody else's: an empty one that something
// is mounted on, or one in which a folder has the image's name.
Error is_slot(const FoundSlot& found, const FileInfo& folder, bool* is) {
  FolderReader reader(found.folder.get(), found.path);
  bool empty = true;
  bool has_image = false;
  *is = false;
  while (const char* name = reader.next()) {
    empty = false;
    if (std::string_view(name) == kImage) {
      has_image = true;
    } else {
      *is |= is_slot_file(name);
    }
  }
  *is |= empty && !folder.mount_root;
  if (!reader.error().ok() || *is || !has_image) return reader.error();
  FileInfo image;
  Error error = stat_at(found.folder.get(), kImage, Follow::kNo, join(found.path, kImage), &image);
  *is = error.ok() && !image.is_folder();
  return error.is(ENOENT) ? Error() : error;
}

// kReleased if there is a slot that may go, or any folder for a snapshot; else why not.
Error find(const ManagedFolder& managed, const ReleaseRequest& request, FoundSlot* found, ReleaseStatus* status) {
  found->path = managed.slot_path(request.slot);
  Error error = open_folder_at(managed.root_fd(), request.slot.c_str(), found->path, &found->folder);
  *status = ReleaseStatus::kAbsent;
  if (error.is(ENOENT)) return {};
  *status = ReleaseStatus::kNotASlot;
  if (is_no_folder(error.code)) return {};
  bool ours = request.snapshot_fd >= 0;
  FileInfo info;
  if (error.ok()) error = stat_fd(found->folder.get(), found->path, &info);
  if (error.ok() && !ours) error = is_slot(*found, info, &ours);
  found->identity = info.identity;
  if (error.ok() && ours) *status = ReleaseStatus::kReleased;
  return error;
}

Error check_snapshot(const FoundSlot& found, int snapshot_fd, ReleaseStatus* status) {
  FileInfo meant;
  Error error = stat_fd(snapshot_fd, found.path, &meant);
  if (error.ok() && !found.identity.same_file(meant.identity)) *status = ReleaseStatus::kAbsent;
  return error;
}

Error check_owner(const ManagedFolder& managed, const FoundSlot& found, const ReleaseRequest& request,
                  ReleaseStatus* status, std::string* raw_id_found) {
  if (request.snapshot_fd >= 0) return check_snapshot(found, request.snapshot_fd, status);
  SmallFile raw_id;
  SmallFile stamp;
  Error error = read_slot_file(found.folder.get(), found.path, kStamp, &stamp);
  if (error.ok()) error = read_raw_id(found.folder.get(), found.path, stamp, &raw_id);
  if (!error.ok()) return error;
  *raw_id_found = raw_id.contents;
  if (request.torn) {
    if (!found.identity.identical(request.expected)) *status = ReleaseStatus::kAbsent;
    return {};
  }
  const bool has_id = raw_id.state != SmallFile::State::kAbsent;
  // btrfs can bring back a folder without some of its files. Any id may release one with neither stamp nor raw id: a
  // slot appears with all of its files.
  if (!has_id && stamp.state == SmallFile::State::kAbsent) return {};
  if (!has_id) {
    std::string name;
    error = real_name(managed, request.slot, found.identity, &name);
    if (!error.ok()) return error;
    if (name != request.slot) {
      *raw_id_found = name;
      *status = ReleaseStatus::kCollision;
      return {};
    }
  }
  if (has_id && raw_id.contents.empty()) {
    *status = ReleaseStatus::kTorn;
  } else if (raw_id.contents != request.raw_id) {
    *status = ReleaseStatus::kCollision;
  }
  return {};
}

Error check_unused(const FoundSlot& found, ReleaseStatus* status) {
  Fd image;
  Error error = open_file_at(found.folder.get(), kImage, join(found.path, kImage), &image);
  const Openness holders = error.ok() ? open_elsewhere(image.get()) : Openness::kUnknown;
  if (error.ok()) error = require_known(holders, join(found.path, kImage));
  // Whoever has a lease on the image, which makes opening it fail, has it open.
  const bool in_use = error.is(EWOULDBLOCK) || holders == Openness::kOpen;
  if (in_use) *status = ReleaseStatus::kInUse;
  // No image, or nothing that can be a disk: nobody uses it.
  const bool no_disk = error.is(ENOENT) || error.is(ELOOP) || error.is(ENXIO);
  return in_use || no_disk ? Error() : error;
}

// *status is kBusy if the slot was exchanged meanwhile.
Error release_once(ManagedFolder& managed, const ReleaseRequest& request, ReleaseStatus* status,
                   std::string* raw_id_found) {
  FoundSlot found;
  Error error = find(managed, request, &found, status);
  if (error.ok() && *status == ReleaseStatus::kReleased) {
    error = check_owner(managed, found, request, status, raw_id_found);
  }
  const auto ask = [&](bool* may_go) {
    Error in_use = request.refuse_in_use ? check_unused(found, status) : Error();
    *may_go = *status == ReleaseStatus::kReleased;
    return in_use;
  };
  bool may_go = false;
  if (error.ok() && *status == ReleaseStatus::kReleased) error = ask(&may_go);
  if (!error.ok() || !may_go) return error;
  bool trashed = false;
  // A VM may have started while the lock was waited for.
  error = trash_slot(managed, request.slot, found.identity, ask, &trashed);
  if (error.ok() && !trashed && *status == ReleaseStatus::kReleased) *status = ReleaseStatus::kBusy;
  return error;
}

}  // namespace

Error release_slot(ManagedFolder& managed, const ReleaseRequest& request, ReleaseStatus* status,
                   std::string* raw_id_found) {
  Error error = managed.check_current();
  *status = ReleaseStatus::kBusy;
  for (int round = 0; round < kRounds && error.ok() && *status == ReleaseStatus::kBusy; round++) {
    error = release_once(managed, request, status, raw_id_found);
  }
  const bool gone = *status == ReleaseStatus::kReleased || *status == ReleaseStatus::kAbsent;
  if (!error.ok() || !gone || !request.durable) return error;
  return flush(managed.root_fd(), managed.root_path()).after_change();
}

}  // namespace microvm
