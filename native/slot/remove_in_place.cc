#include "slot/remove_in_place.h"

#include <fcntl.h>
#include <unistd.h>

#include <string_view>

#include "slot/slot_files.h"
#include "system/fd.h"
#include "system/file.h"
#include "system/tree.h"

namespace microvm {
namespace {

// The manifest of a snapshot; see src/snapshots/snapshot-manifest.ts.
constexpr char kManifest[] = "SHA256SUMS";

bool goes_late(std::string_view name) { return is_slot_file(name) || name == kManifest; }

Error remove_file_if_there(int folder_fd, const char* name, const std::string& path) {
  uint64_t budget = UINT64_MAX;
  return remove_tree(folder_fd, name, join(path, name), &budget);
}

// What other programs put there goes first: if something of it can't be removed, the slot is still whole.
Error remove_others(int folder_fd, const std::string& path) {
  FolderReader reader(folder_fd, path);
  while (const char* name = reader.next()) {
    if (goes_late(name)) continue;
    Error error = remove_file_if_there(folder_fd, name, path);
    if (!error.ok()) return error;
  }
  return reader.error();
}

}  // namespace

Error remove_in_place(int parent_fd, const char* name, const std::string& path, const Identity* expected,
                      bool* removed) {
  *removed = false;
  Fd folder;
  FileInfo info;
  Error error = open_folder_at(parent_fd, name, path, &folder);
  if (error.is(ENOENT)) return {};
  if (error.ok()) error = stat_fd(folder.get(), path, &info);
  if (!error.ok() || (expected != nullptr && !info.identity.same_file(*expected))) return error;
  error = remove_others(folder.get(), path);
  for (const char* file : kSlotFilesToRemove) {
    if (error.ok()) error = remove_file_if_there(folder.get(), file, path);
  }
  if (error.ok()) error = remove_file_if_there(folder.get(), kManifest, path);
  if (!error.ok()) return error;
  *removed = true;
  const bool gone = retry_eintr([&] { return unlinkat(parent_fd, name, AT_REMOVEDIR); }) == 0;
  if (gone || errno == ENOENT || errno == ENOTDIR) return {};
  error = Error::last("rmdir", path);
  // Where another folder has the name by now it is not empty, and stays.
  FileInfo now;
  const bool is_other =
      !stat_at(parent_fd, name, Follow::kNo, path, &now).ok() || !now.identity.same_file(info.identity);
  return is_other ? Error() : error;
}

}  // namespace microvm
