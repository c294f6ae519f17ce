#include "slot/slot_owner_mode.h"

#include "slot/slot_files.h"
#include "system/fd.h"
#include "system/file.h"

namespace microvm {

Error set_slot_owner_and_mode(const ManagedFolder& managed, const std::string& slot, const Identity& folder,
                              const Identity& image, const OwnerAndMode& owner_and_mode, bool* same) {
  const std::string slot_path = managed.slot_path(slot);
  const std::string path = join(slot_path, kImage);
  Fd slot_fd;
  Fd image_fd;
  FileInfo slot_now;
  FileInfo image_now;
  *same = false;
  Error error = open_folder_at(managed.root_fd(), slot.c_str(), slot_path, &slot_fd);
  if (error.ok()) error = stat_fd(slot_fd.get(), slot_path, &slot_now);
  if (error.ok()) error = open_file_at(slot_fd.get(), kImage, path, &image_fd);
  if (error.ok()) error = stat_fd(image_fd.get(), path, &image_now);
  if (error.is(ENOENT)) return {};
  if (!error.ok()) return error;
  *same = slot_now.identity.identical(folder) && image_now.identity.same_file(image);
  return *same ? set_owner_and_mode(image_fd.get(), owner_and_mode, path) : Error();
}

}  // namespace microvm
