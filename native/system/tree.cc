#include "system/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "system/file.h"
#include "system/identity.h"

namespace microvm {
namespace {

// Deeper than anything of ours; a tree that a stranger put into a slot must not exhaust the stack.
constexpr int kDepthLimit = 64;

Error remove_entry(int folder_fd, const char* name, const std::string& path, uint64_t* budget, int depth);

// Whether something is mounted on a folder that lies in `folder_fd`. Before Linux 5.8 another device is all that can be
// seen of that: a bind mount of the same file system looks like a folder, and a btrfs subvolume like a mount.
Error is_mounted(int folder_fd, const FileInfo& folder, const std::string& path, bool* mounted) {
  *mounted = folder.mount_root;
  if (folder.tells_mounts) return {};
  FileInfo parent;
  Error error = stat_fd(folder_fd, path, &parent);
  *mounted = parent.identity.device != folder.identity.device;
  return error;
}

Error remove_contents(int folder_fd, const std::string& path, uint64_t* budget, int depth) {
  FolderReader reader(folder_fd, path);
  while (const char* name = reader.next()) {
    if (*budget == 0) return {};
    Error error = remove_entry(folder_fd, name, join(path, name), budget, depth);
    if (!error.ok()) return error;
  }
  return reader.error();
}

Error remove_entry(int folder_fd, const char* name, const std::string& path, uint64_t* budget, int depth) {
  if (depth > kDepthLimit) return Error::of(ELOOP, "unlink", path);
  if (retry_eintr([&] { return unlinkat(folder_fd, name, 0); }) == 0) {
    --*budget;
    return {};
  }
  if (errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return Error::last("unlink", path);
  Error unlink_error = Error::last("unlink", path);  // EPERM: a folder by POSIX, or an immutable file

  Fd folder;
  Error error = open_folder_at(folder_fd, name, path, &folder);
  if (error.is(ENOENT)) return {};
  if (!error.ok()) return unlink_error;
  FileInfo info;
  error = stat_fd(folder.get(), path, &info);
  if (!error.ok()) return error;
  // What somebody mounted inside a slot is not the slot's.
  bool mounted = false;
  error = is_mounted(folder_fd, info, path, &mounted);
  if (!error.ok()) return error;
  if (mounted) return Error::of(EBUSY, "rmdir", path);
  error = remove_contents(folder.get(), path, budget, depth + 1);
  if (!error.ok() || *budget == 0) return error;
  if (retry_eintr([&] { return unlinkat(folder_fd, name, AT_REMOVEDIR); }) < 0 && errno != ENOENT) {
    return Error::last("rmdir", path);
  }
  --*budget;
  return {};
}

}  // namespace

Error remove_tree(int folder_fd, const char* name, const std::string& path, uint64_t* budget) {
  return remove_entry(folder_fd, name, path, budget, 0);
}

FolderReader::FolderReader(int folder_fd, std::string_view path) : path_(path) {
  // A descriptor of its own: closedir closes it, and the reading position is not shared with other threads.
  Fd copy;
  error_ = open_folder_at(folder_fd, ".", path, &copy);
  if (!error_.ok()) return;
  stream_ = fdopendir(copy.get());
  if (stream_ == nullptr) {
    error_ = Error::last("opendir", path);
    return;
  }
  copy.release();
}

FolderReader::~FolderReader() {
  if (stream_ != nullptr) closedir(static_cast<DIR*>(stream_));
}

const char* FolderReader::next() {
  if (stream_ == nullptr) return nullptr;
  for (;;) {
    errno = 0;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody else reads from this stream
    struct dirent* entry = readdir(static_cast<DIR*>(stream_));
    if (entry == nullptr) {
      if (errno != 0) error_ = Error::last("readdir", path_);
      return nullptr;
    }
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) return entry->d_name;
  }
}

}  // namespace microvm
