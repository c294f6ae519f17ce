#include "dress.h"

#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "file.h"
#include "slot_state.h"

namespace microvm {

// Owner before mode: changing the owner clears set-id bits.
Error dress_file(int fd, const Dress& dress, const std::string& path) {
  if (dress.has_owner && retry_eintr([&] { return fchown(fd, dress.uid, dress.gid); }) < 0) {
    return Error::last("fchown", path);
  }
  if (dress.has_mode && retry_eintr([&] { return fchmod(fd, dress.mode); }) < 0) {
    return Error::last("fchmod", path);
  }
  return {};
}

Error dress_slot(const Store& store, const std::string& slot, const Identity& expected, const Dress& dress) {
  const std::string slot_path = store.slot_path(slot);
  const std::string path = join(slot_path, kImage);
  Fd folder;
  Fd image;
  FileInfo info;
  Error error = open_folder_at(store.clones_fd(), slot.c_str(), slot_path, &folder);
  if (error.ok()) error = open_file_at(folder.get(), kImage, path, &image);
  if (error.ok()) error = stat_fd(image.get(), path, &info);
  if (!error.ok()) return error;
  // With several names it may be a template: that is never dressed.
  if (!info.identity.same_file(expected) || info.identity.links != 1) return Error::of(ESTALE, "statx", path);
  return dress_file(image.get(), dress, path);
}

}  // namespace microvm
