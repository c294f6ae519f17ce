#include "slot/owner_mode.h"

#include <sys/stat.h>
#include <unistd.h>

#include "slot/slot_state.h"
#include "system/fd.h"
#include "system/file.h"

namespace microvm {

// Owner before mode: changing the owner clears set-id bits.
Error set_owner_and_mode(int fd, const OwnerAndMode& owner_and_mode, const std::string& path) {
  if (owner_and_mode.has_owner && retry_eintr([&] { return fchown(fd, owner_and_mode.uid, owner_and_mode.gid); }) < 0) {
    return Error::last("fchown", path);
  }
  if (owner_and_mode.has_mode && retry_eintr([&] { return fchmod(fd, owner_and_mode.mode); }) < 0) {
    return Error::last("fchmod", path);
  }
  return {};
}

Error set_slot_owner_and_mode(const ManagedFolder& managed, const std::string& slot, const Identity& expected,
                              const OwnerAndMode& owner_and_mode) {
  const std::string slot_path = managed.slot_path(slot);
  const std::string path = join(slot_path, kImage);
  Fd folder;
  Fd image;
  FileInfo info;
  Error error = open_folder_at(managed.clones_fd(), slot.c_str(), slot_path, &folder);
  if (error.ok()) error = open_file_at(folder.get(), kImage, path, &image);
  if (error.ok()) error = stat_fd(image.get(), path, &info);
  if (!error.ok()) return error;
  // With several names it may be a template: that is never dressed.
  if (!info.identity.same_file(expected) || info.identity.links != 1) return Error::of(ESTALE, "statx", path);
  return set_owner_and_mode(image.get(), owner_and_mode, path);
}

}  // namespace microvm
