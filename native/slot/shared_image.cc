#include "slot/shared_image.h"

#include <string_view>

#include "slot/slot_files.h"
#include "system/file.h"
#include "system/tree.h"

namespace microvm {
namespace {

// Whether <folder>/<any name but except>/rootfs.ext4 is this file.
Error has_image(int folder_fd, const std::string& path, std::string_view except, Follow follow, const Identity& image,
                bool* has) {
  FolderReader reader(folder_fd, path);
  while (const char* name = reader.next()) {
    if (*name == '.' || name == except) continue;
    const std::string file = join(name, kImage);
    FileInfo info;
    Error error = stat_at(folder_fd, file.c_str(), follow, path, &info);
    // What cannot be looked at is no slot and no template of ours.
    if (error.ok() && info.identity.same_file(image)) {
      *has = true;
      return {};
    }
  }
  return reader.error();
}

}  // namespace

Error find_shared_image(const ManagedFolder& managed, const std::string& slot, const Identity& image,
                        const std::string& template_dir, Sharer* sharer) {
  *sharer = Sharer::kNobody;
  bool has = false;
  Fd templates;
  Error error = open_folder(template_dir, &templates);
  // A template may be a symbolic link.
  if (error.ok()) error = has_image(templates.get(), template_dir, {}, Follow::kYes, image, &has);
  if (error.is(ENOENT)) error = Error();
  if (error.ok() && has) *sharer = Sharer::kTemplate;
  if (!error.ok() || has) return error;
  error = has_image(managed.root_fd(), managed.root_path(), slot, Follow::kNo, image, &has);
  if (error.ok() && has) *sharer = Sharer::kSlot;
  return error;
}

}  // namespace microvm
