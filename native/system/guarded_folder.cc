#include "system/guarded_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "system/file.h"

namespace microvm {
namespace {

// As the kernel resolves paths: path_resolution(7).
constexpr int kLinksLimit = 40;
constexpr size_t kLinkBytes = 4096;

// From headers that older C libraries lack: openat2(2), and file system types from linux/magic.h.
constexpr long kOpenat2 = 437;
struct OpenHow {
  uint64_t flags;
  uint64_t mode;
  uint64_t resolve;
};
constexpr uint64_t kResolveNoSymlinks = 0x04;
constexpr uint64_t kResolveBeneath = 0x08;
constexpr int64_t kProcMagic = 0x9fa0;
constexpr int64_t kFuseMagic = 0x65735546;

constexpr int kFolderFlags = O_PATH | O_DIRECTORY | O_CLOEXEC;

bool is_ours(const FileInfo& info) { return info.uid == 0 || info.uid == static_cast<uint32_t>(syscall(SYS_geteuid)); }

bool others_may_write(const FileInfo& info) { return (info.mode & (S_IWGRP | S_IWOTH)) != 0; }

class Walk {
 public:
  explicit Walk(const std::string& path) : left_(path) {}

  Error run() {
    Error error = start(left_[0] == '/' ? "/" : ".");
    while (error.ok()) {
      const size_t from = left_.find_first_not_of('/');
      if (from == std::string::npos) break;
      left_.erase(0, from);
      if (!guarded_) return open_rest();
      const size_t end = left_.find('/');
      const std::string name = left_.substr(0, end);
      left_.erase(0, end == std::string::npos ? left_.size() : end);
      error = step(name);
    }
    return error;
  }

  Fd take() { return std::move(here_); }
  // Whether nobody else can put names into the folder itself: the sticky bit lets them.
  bool guarded() const { return guarded_ && !sticky_; }

 private:
  Error start(const char* path) {
    guarded_ = true;
    passed_ = path[0] == '/' ? "" : path;
    return enter(AT_FDCWD, path, 0);
  }

  Error step(const std::string& name) {
    if (name == ".") return {};
    const std::string path = join(passed_, name);
    Fd entry(retry_eintr([&] { return openat(here_.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC); }));
    if (!entry) return Error::last("open", path);
    FileInfo info;
    Error error = stat_fd(entry.get(), path, &info);
    if (!error.ok()) return error;
    if (S_ISLNK(info.mode)) return follow(name, path, entry.get(), info);
    if (!info.is_folder()) return Error::of(ENOTDIR, "open", path);
    passed_ = path;
    arrive(std::move(entry), info);
    return {};
  }

  // A link in a guarded folder. In one with the sticky bit everybody may make names, and nobody may replace ours.
  Error follow(const std::string& name, const std::string& path, int link_fd, const FileInfo& link) {
    if (!is_ours(link) || ++links_ > kLinksLimit) return Error::of(ELOOP, "open", path);
    struct statfs fs = {};
    if (retry_eintr([&] { return syscall(SYS_fstatfs, here_.get(), &fs); }) < 0) return Error::last("fstatfs", path);
    const auto type = static_cast<int64_t>(fs.f_type);
    // Whoever serves a FUSE file system says who owns what in it.
    if (type == kFuseMagic) return Error::of(ELOOP, "open", path);
    // The text of a link in /proc is only a description of what it leads to.
    if (type == kProcMagic) {
      passed_ = path;
      return enter(here_.get(), name.c_str(), 0);
    }
    std::string target(kLinkBytes, '\0');
    const long length = retry_eintr([&] { return syscall(SYS_readlinkat, link_fd, "", &target[0], kLinkBytes); });
    if (length < 0) return Error::last("readlink", path);
    target.resize(static_cast<size_t>(length));
    const bool absolute = !target.empty() && target[0] == '/';
    left_ = target + '/' + left_;
    return absolute ? start("/") : Error();
  }

  // What lies in a folder that others can write to.
  Error open_rest() {
    const std::string path = join(passed_, left_);
    OpenHow how = {kFolderFlags, 0, kResolveNoSymlinks | kResolveBeneath};
    Fd folder(static_cast<int>(
        retry_eintr([&] { return syscall(kOpenat2, here_.get(), left_.c_str(), &how, sizeof(how)); })));
    if (folder) {
      here_ = std::move(folder);
      return {};
    }
    // ENOSYS before Linux 5.6 and in user-mode emulators, EPERM by seccomp, EAGAIN if something was renamed meanwhile.
    // Leaving the folder by ".." is EXDEV.
    if (errno == EXDEV) errno = ELOOP;
    if (errno != ENOSYS && errno != EPERM && errno != EAGAIN) return Error::last("openat2", path);
    return walk_rest();
  }

  Error walk_rest() {
    while (!left_.empty()) {
      const size_t end = left_.find('/');
      const std::string name = left_.substr(0, end);
      const size_t next = end == std::string::npos ? end : left_.find_first_not_of('/', end);
      left_.erase(0, next == std::string::npos ? left_.size() : next);
      if (name == ".") continue;
      passed_ = join(passed_, name);
      if (name == "..") return Error::of(ELOOP, "open", passed_);
      Fd entry(retry_eintr([&] { return openat(here_.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC); }));
      if (!entry) return Error::last("open", passed_);
      FileInfo info;
      Error error = stat_fd(entry.get(), passed_, &info);
      if (!error.ok()) return error;
      if (S_ISLNK(info.mode)) return Error::of(ELOOP, "open", passed_);
      if (!info.is_folder()) return Error::of(ENOTDIR, "open", passed_);
      here_ = std::move(entry);
    }
    return {};
  }

  Error enter(int folder_fd, const char* name, int more_flags) {
    Fd folder(retry_eintr([&] { return openat(folder_fd, name, kFolderFlags | more_flags); }));
    if (!folder) return Error::last("open", passed_);
    FileInfo info;
    Error error = stat_fd(folder.get(), passed_, &info);
    if (error.ok()) arrive(std::move(folder), info);
    return error;
  }

  void arrive(Fd folder, const FileInfo& info) {
    here_ = std::move(folder);
    sticky_ = others_may_write(info) && (info.mode & S_ISVTX) != 0;
    guarded_ = is_ours(info) && (!others_may_write(info) || sticky_);
  }

  std::string left_;    // of the path
  std::string passed_;  // of the path
  Fd here_;
  bool guarded_ = true;
  bool sticky_ = false;
  int links_ = 0;
};

std::string proc_link(int fd) { return "/proc/self/fd/" + decimal(static_cast<uint64_t>(fd)); }

// AT_EMPTY_PATH asks for CAP_DAC_READ_SEARCH, and says ENOENT without it: open(2), O_TMPFILE.
int link_by_descriptor(int fd, int folder_fd, const char* name) {
  if (retry_eintr([&] { return linkat(fd, "", folder_fd, name, AT_EMPTY_PATH); }) == 0) return 0;
  if (errno != ENOENT && errno != EINVAL) return -1;
  return retry_eintr([&] { return linkat(AT_FDCWD, proc_link(fd).c_str(), folder_fd, name, AT_SYMLINK_FOLLOW); });
}

}  // namespace

Error GuardedFolder::open(const std::string& path, Ref<GuardedFolder>* folder) {
  Walk walk(path);
  Error error = walk.run();
  if (error.ok()) *folder = Ref<GuardedFolder>(new GuardedFolder(walk.take(), path, walk.guarded()));
  return error;
}

Error GuardedFolder::open_own(const std::string& path, Ref<GuardedFolder>* folder) {
  Fd fd(retry_eintr([&] { return openat(AT_FDCWD, path.c_str(), kFolderFlags); }));
  if (!fd) return Error::last("open", path);
  *folder = Ref<GuardedFolder>(new GuardedFolder(std::move(fd), path, true));
  return {};
}

Error GuardedFolder::flush_names() const {
  Fd folder;
  Error error = open_folder_at(fd(), ".", path_, &folder);
  return error.ok() ? flush(folder.get(), path_) : error;
}

void split_path(const std::string& path, std::string* folder, std::string* name) {
  const size_t slash = path.rfind('/');
  *folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  *name = slash == std::string::npos ? path : path.substr(slash + 1);
}

Error link_file(int fd, int folder_fd, const char* name, std::string_view path, std::string_view dest) {
  if (link_by_descriptor(fd, folder_fd, name) == 0) return {};
  return Error::last("link", path, dest);
}

bool can_link_file(int fd) {
  FileInfo file;
  FileInfo found;
  return stat_fd(fd, "", &file).ok() && stat_at(AT_FDCWD, proc_link(fd).c_str(), Follow::kYes, "", &found).ok() &&
         found.identity.same_file(file.identity);
}

bool is_named(int folder_fd, const char* name, const Identity& file) {
  FileInfo info;
  return stat_at(folder_fd, name, Follow::kNo, "", &info).ok() && info.identity.same_file(file);
}

void unlink_file(int folder_fd, const char* name, const Identity& file) {
  if (is_named(folder_fd, name, file)) unlinkat(folder_fd, name, 0);
}

}  // namespace microvm
