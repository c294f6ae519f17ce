#include "system/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "system/file.h"
#include "system/identity.h"
#include "system/own_links.h"

namespace microvm {
namespace {

// Folders above the present one that stay open. Those further up are found again by "..": a tree that a stranger made
// can be deeper than any limit of descriptors, and its paths longer than PATH_MAX.
constexpr size_t kOpenLevels = 32;

// Names that an error's path shows in full.
constexpr size_t kLevelsShown = 8;

// Whether something is mounted on a folder that lies in `folder_fd`. Before Linux 5.8 another device is all that can be
// seen of that: a bind mount of the same file system looks like a folder, and a btrfs subvolume like a mount.
Error is_mounted(int folder_fd, const FileInfo& folder, const std::string& path, bool* mounted) {
  *mounted = folder.mount_root;
  if (folder.knows_mounts) return {};
  FileInfo parent;
  Error error = stat_fd(folder_fd, path, &parent);
  *mounted = parent.identity.device != folder.identity.device;
  return error;
}

// Whoever may write to a folder can fill it for as long as it is being emptied: they may still have it open, wherever
// it was moved to. Where this is refused, it is emptied all the same.
void close_to_others(int fd, const FileInfo& folder) {
  const auto user = static_cast<uint32_t>(syscall(SYS_geteuid));
  const bool is_another_users = folder.uid != user;
  if (is_another_users) (void)retry_eintr([&] { return fchown(fd, user, static_cast<gid_t>(-1)); });
  if (is_another_users || (folder.mode & (S_IWGRP | S_IWOTH)) != 0) {
    (void)retry_eintr([&] { return fchmod(fd, 0700); });
  }
}

class TreeRemover {
 public:
  TreeRemover(int folder_fd, const std::string& path, uint64_t* budget)
      : folder_fd_(folder_fd), path_(path), budget_(budget) {}

  Error run(const char* name) {
    Error error = remove_or_enter(folder_fd_, name);
    while (error.ok() && !levels_.empty() && *budget_ > 0) {
      Level& level = levels_.back();
      if (const char* entry = level.reader->next()) {
        error = remove_or_enter(level.fd.get(), entry);
      } else {
        error = level.reader->error();
        if (error.ok()) error = leave();
      }
    }
    return error;
  }

 private:
  struct Level {
    std::string name;
    Identity identity;
    Fd fd;  // closed while the present folder is far below
    std::unique_ptr<FolderReader> reader;
  };

  Error remove_or_enter(int parent_fd, const char* name) {
    const int code = unlink_name(parent_fd, name);
    if (code == 0) --*budget_;
    if (code == 0 || code == ENOENT) return {};
    const std::string path = path_of(name);
    // EPERM: a folder by POSIX, or an immutable file
    if (code != EISDIR && code != EPERM) return Error::of(code, "unlink", path);
    Level level;
    level.name = name;
    Error error = open_folder_at(parent_fd, name, path, &level.fd);
    if (error.is(ENOENT)) return {};
    if (!error.ok()) return Error::of(code, "unlink", path);
    FileInfo info;
    error = stat_fd(level.fd.get(), path, &info);
    if (!error.ok()) return error;
    level.identity = info.identity;
    // What somebody mounted inside a slot is not the slot's.
    bool mounted = false;
    error = is_mounted(parent_fd, info, path, &mounted);
    if (!error.ok()) return error;
    if (mounted) return Error::of(EBUSY, "rmdir", path);
    close_to_others(level.fd.get(), info);
    level.reader = std::make_unique<FolderReader>(level.fd.get(), path);
    levels_.push_back(std::move(level));
    if (levels_.size() <= kOpenLevels) return {};
    close(&levels_[levels_.size() - 1 - kOpenLevels]);
    if (levels_.size() > deepest_) {
      deepest_ = levels_.size();
      if (*budget_ < UINT64_MAX) ++*budget_;
    }
    return {};
  }

  // Removes the present folder, which is empty, and goes up.
  Error leave() {
    const Level left = std::move(levels_.back());
    levels_.pop_back();
    Error error = levels_.empty() ? Error() : reopen(&levels_.back(), left.fd.get());
    if (!error.ok()) return error;
    const int parent_fd = levels_.empty() ? folder_fd_ : levels_.back().fd.get();
    if (retry_eintr([&] { return unlinkat(parent_fd, left.name.c_str(), AT_REMOVEDIR); }) == 0) {
      --*budget_;
      return {};
    }
    return errno == ENOENT ? Error() : Error::last("rmdir", path_of(left.name));
  }

  static void close(Level* level) {
    level->reader.reset();
    level->fd.reset();
  }

  // ESTALE if somebody moved the folder below to another place meanwhile.
  Error reopen(Level* level, int below_fd) const {
    if (level->fd) return {};
    FileInfo info;
    Error error = open_folder_at(below_fd, "..", path_, &level->fd);
    if (error.ok()) error = stat_fd(level->fd.get(), path_, &info);
    if (!error.ok()) return error;
    if (!info.identity.same_file(level->identity)) return Error::of(ESTALE, "rmdir", path_);
    level->reader = std::make_unique<FolderReader>(level->fd.get(), path_);
    return {};
  }

  // For errors.
  std::string path_of(std::string_view name) const {
    if (levels_.empty()) return path_;
    std::string path = path_;
    if (levels_.size() > kLevelsShown) return join(join(path, "..."), name);
    for (size_t i = 1; i < levels_.size(); i++) path = join(path, levels_[i].name);
    return join(path, name);
  }

  const int folder_fd_;
  const std::string& path_;
  uint64_t* const budget_;
  // Each call walks down from the top again. So it removes at least as much as it has walked, or a tree would take the
  // square of its depth.
  size_t deepest_ = kOpenLevels;
  std::vector<Level> levels_;  // from the top of the tree to the present folder
};

}  // namespace

Error remove_tree(int folder_fd, const char* name, const std::string& path, uint64_t* budget) {
  return TreeRemover(folder_fd, path, budget).run(name);
}

FolderReader::FolderReader(int folder_fd, std::string_view path) : path_(path) {
  // A descriptor of its own: closedir closes it, and the reading position is not shared with other threads.
  Fd copy;
  error_ = open_folder_at(folder_fd, ".", path, &copy);
  if (error_.ok()) start(std::move(copy));
}

FolderReader::FolderReader(const std::string& path) : path_(path) {
  Fd folder;
  error_ = open_folder_at(AT_FDCWD, join(path, ".").c_str(), path, &folder);
  if (error_.ok()) start(std::move(folder));
}

void FolderReader::start(Fd folder) {
  stream_ = fdopendir(folder.get());
  if (stream_ == nullptr) {
    error_ = Error::last("opendir", path_);
    return;
  }
  folder.release();
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
    if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
    type_ = entry->d_type;
    return entry->d_name;
  }
}

}  // namespace microvm
