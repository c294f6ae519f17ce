#include "slot/staged_slot.h"

#include <fcntl.h>
#include <unistd.h>

#include "image/packed_copy.h"
#include "image/sparse_copy.h"
#include "system/errno_policy.h"
#include "system/file.h"
#include "system/own_links.h"
#include "system/reflink.h"
#include "system/rename.h"
#include "system/tree.h"

namespace microvm {
namespace {

constexpr unsigned kFolderMode = 0755;

}  // namespace

Error StagedSlot::build(CloneStatus* status) {
  name_ = managed_->next_name();
  path_ = join(managed_->session_path(), name_);
  Error error = make_new_folder(managed_->session_fd(), name_.c_str(), kFolderMode, path_);
  if (error.ok()) error = open_to_others();
  if (!error.ok()) return error;

  bool done = false;
  if ((plan_.rungs & static_cast<unsigned>(Rung::kReflink)) != 0) error = try_reflink(&done);
  if (error.ok() && !done && (plan_.rungs & static_cast<unsigned>(Rung::kHardlink)) != 0) {
    error = try_hardlink(&done);
    if (error.ok() && done && !plan_.owner_and_mode.empty()) {
      // Whether a link can be made is only known once it is: bind mounts, attributes and quotas of projects can prevent
      // it too.
      *status = CloneStatus::kSharedInode;
      return {};
    }
  }
  if (!error.ok()) return error;
  if (done) {
    *status = CloneStatus::kStaged;
    return {};
  }
  strategy_ = Rung::kCopy;
  *status = CloneStatus::kCopyNeeded;
  return {};
}

// A umask, or a default ACL, takes rights away from those whom the slot is for. Asking costs less than setting the
// mode.
Error StagedSlot::open_to_others() {
  FileInfo folder;
  Error error = stat_at(managed_->session_fd(), name_.c_str(), Follow::kNo, path_, &folder);
  modes_restricted_ = error.ok() && (folder.mode & 0777) != kFolderMode;
  if (!modes_restricted_) return error;
  return set_mode_at(managed_->session_fd(), name_.c_str(), (folder.mode & 07000) | kFolderMode, path_);
}

Error StagedSlot::create_image() {
  Error error = create_file_at(managed_->session_fd(), inside(kImage).c_str(), 0600, image_path(), &image_);
  if (!error.ok() || !modes_restricted_ || plan_.owner_and_mode.has_mode) return error;
  return require_mode(image_.get(), 0600, image_path());
}

Error StagedSlot::flush_image() const {
  if (image_) return flush(image_.get(), image_path());
  Error error = still_staged();
  return error.ok() ? flush_at(managed_->session_fd(), inside(kImage).c_str(), image_path()) : error;
}

Error StagedSlot::stat_image(FileInfo* info) const {
  return stat_at(managed_->session_fd(), inside(kImage).c_str(), Follow::kNo, image_path(), info);
}

Error StagedSlot::swap_image(int folder_fd, std::string_view dest, bool* exchanged) {
  Error error = still_staged();
  if (!error.ok()) return error;
  error = exchange({managed_->session_fd(), inside(kImage).c_str(), image_path()}, {folder_fd, kImage, dest});
  *exchanged = error.ok();
  // EXDEV: the image that is there has another project id than what is staged (see project.h).
  if (!error.is(EINVAL) && !error.is(ENOSYS) && !error.is(EXDEV)) return error;
  error = rename_over({managed_->session_fd(), inside(kImage).c_str(), image_path()}, {folder_fd, kImage, dest});
  return error.is(EXDEV) && reflink_over(folder_fd, dest).ok() ? Error() : error;
}

// The folder is a mount point or a subvolume. Blocks may be shared with one of the same file system.
Error StagedSlot::reflink_over(int folder_fd, std::string_view dest) {
  FileInfo info;
  Fd image;
  Fd made;
  Error error = open_file_at(managed_->session_fd(), inside(kImage).c_str(), image_path(), &image);
  if (error.ok()) error = stat_fd(image.get(), image_path(), &info);
  if (!error.ok()) return error;
  unlinkat(folder_fd, kNewImage, 0);  // of a process that was killed here
  error = create_file_at(folder_fd, kNewImage, 0600, dest, &made);
  if (!error.ok()) return error;
  error = reflink(image.get(), made.get(), info.identity.size, image_path(), dest);
  FileInfo clone;
  if (error.ok()) error = stat_fd(made.get(), dest, &clone);
  if (error.ok() && clone.identity.size != info.identity.size) error = Error::of(EIO, "ioctl", image_path(), dest);
  const OwnerAndMode same = {true, info.uid, info.gid, true, info.mode & 07777};
  if (error.ok()) error = set_owner_and_mode(made.get(), same, std::string(dest));
  if (error.ok()) error = flush(made.get(), dest);
  if (error.ok()) error = rename_over({folder_fd, kNewImage, dest}, {folder_fd, kImage, dest});
  if (!error.ok()) unlinkat(folder_fd, kNewImage, 0);
  return error;
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
      return set_owner_and_mode(image_.get(), plan_.owner_and_mode, image_path());
    }
  } else if (verdict_of(error.code) == Verdict::kStop) {
    return error;
  }
  attempts_.push_back({Rung::kReflink, error.code});
  image_.reset();
  return remove_file_at(managed_->session_fd(), inside(kImage).c_str(), image_path());
}

Error StagedSlot::try_hardlink(bool* done) {
  const int code = change_links(source_->fd(), source_->fd(), [&] {
    return retry_eintr([&] {
      return linkat(AT_FDCWD, source_->path().c_str(), managed_->session_fd(), inside(kImage).c_str(),
                    AT_SYMLINK_FOLLOW);
    });
  });
  if (code != 0) {
    if (verdict_of(code) == Verdict::kStop) return Error::of(code, "link", source_->path(), image_path());
    attempts_.push_back({Rung::kHardlink, code});
    return {};
  }
  // The path may have been given to another file since it was looked at: source_unchanged() compares the open file
  // alone.
  FileInfo linked;
  Error error = stat_at(managed_->session_fd(), inside(kImage).c_str(), Follow::kNo, image_path(), &linked);
  if (!error.ok()) return error;
  if (linked.identity.same_file(plan_.expected)) {
    *done = true;
    strategy_ = Rung::kHardlink;
    return {};
  }
  // On overlayfs linking a file of the lower layer copies it up first, which can give it another inode.
  attempts_.push_back({Rung::kHardlink, EXDEV});
  return remove_file_at(managed_->session_fd(), inside(kImage).c_str(), image_path());
}

// Not before it is its turn: thousands may wait to be copied, and descriptors are few.
Error StagedSlot::start_copy() {
  Error error = still_staged();
  if (error.ok()) error = create_image();
  if (!error.ok()) return error;
  if (plan_.packed) {
    copy_ = std::make_unique<PackedCopy>(source_->fd(), image_.get(), plan_.expected.size, source_->path(),
                                         image_path(), !plan_.unhashed);
  } else {
    copy_ =
        std::make_unique<SparseCopy>(source_->fd(), image_.get(), plan_.expected.size, source_->path(), image_path());
  }
  return {};
}

Error StagedSlot::copy_step(uint64_t budget, bool* done) {
  Error error = copy_ ? Error() : start_copy();
  if (!error.ok()) return error;
  if (!image_) return Error::of(EBADF, "open", image_path());  // copied to the end already
  error = copy_->step(budget);
  if (!error.ok() || !copy_->done()) return error;
  error = copy_->finish(&sha256_);
  if (error.ok()) error = set_owner_and_mode(image_.get(), plan_.owner_and_mode, image_path());
  *done = error.ok();
  image_.reset();
  return error;
}

void StagedSlot::discard() {
  if (name_.empty()) return;
  copy_.reset();
  image_.reset();
  // What cannot be removed now goes with the next sweep, which leaves the folder of a session that lives alone.
  uint64_t budget = UINT64_MAX;
  if (!remove_tree(managed_->session_fd(), name_.c_str(), path_, &budget).ok()) (void)managed_->to_trash(name_).ok();
  name_.clear();
}

}  // namespace microvm
