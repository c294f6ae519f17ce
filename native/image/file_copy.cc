#include "image/file_copy.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "system/errno_policy.h"
#include "system/file.h"
#include "system/identity.h"
#include "system/lock.h"
#include "system/reflink.h"
#include "system/rename.h"
#include "system/tree.h"

namespace microvm {
namespace {

constexpr std::string_view kHiddenPrefix = ".microvm-rootfs-";
constexpr std::string_view kHiddenSuffix = ".tmp";
constexpr int kRounds = 16;

bool is_hidden_name(std::string_view name) {
  const size_t frame = kHiddenPrefix.size() + kHiddenSuffix.size();
  if (name.size() <= frame || name.substr(0, kHiddenPrefix.size()) != kHiddenPrefix ||
      name.substr(name.size() - kHiddenSuffix.size()) != kHiddenSuffix) {
    return false;
  }
  name = name.substr(kHiddenPrefix.size(), name.size() - frame);
  return name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// What killed exports have left: whoever makes such a file holds a lock on it. It may have its owner already.
void remove_abandoned(int folder_fd, const std::string& path) {
  FolderReader reader(folder_fd, path);
  while (const char* name = reader.next()) {
    Fd file;
    FileInfo info;
    if (is_hidden_name(name) && open_file_at(folder_fd, name, path, &file).ok() &&
        stat_fd(file.get(), path, &info).ok() && info.is_regular() && try_lock(file.get(), path).ok()) {
      unlink_file(folder_fd, name, info.identity);
    }
  }
}

}  // namespace

Error FileCopy::start(const Ref<Source>& source, const Ref<GuardedFolder>& folder, const std::string& name,
                      Ref<FileCopy>* out) {
  Ref<FileCopy> copy(new FileCopy(source, folder, name));
  FileInfo info;
  Error error = stat_fd(source->fd(), source->path(), &info);
  if (!error.ok()) return error;
  copy->size_ = info.identity.size;
  error = copy->create();
  if (error.ok()) error = copy->try_reflink();
  if (error.ok()) *out = copy;
  return error;
}

Error FileCopy::create() {
  // Fails early if the name is taken. If another process takes it later, publish() fails.
  FileInfo there;
  if (stat_at(folder_->fd(), name_.c_str(), Follow::kNo, dest_, &there).ok()) return Error::of(EEXIST, "open", dest_);
  file_.reset(retry_eintr([&] { return openat(folder_->fd(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); }));
  if (!file_) {
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) return Error::last("open", folder_->path());
    return create_with_hidden_name();
  }
  return can_link_file(file_.get()) ? Error() : create_with_hidden_name();
}

Error FileCopy::create_with_hidden_name() {
  remove_abandoned(folder_->fd(), folder_->path());
  Error error;
  for (int round = 0; round < kRounds; round++) {
    // A random name of its own: `name_` may be too long to be added to, and a killed process may have had this one's
    // id.
    uint64_t random = 0;
    if (retry_eintr([&] { return syscall(SYS_getrandom, &random, sizeof random, 0); }) < 0) {
      return Error::last("getrandom", dest_);
    }
    temporary_ = std::string(kHiddenPrefix) + hexadecimal(random) + std::string(kHiddenSuffix);
    error = create_file_at(folder_->fd(), temporary_.c_str(), 0600, join(folder_->path(), temporary_), &file_);
    FileInfo info;
    if (error.ok()) error = stat_fd(file_.get(), dest_, &info);
    if (!error.ok()) break;
    // Before it was locked, another export may have taken it for abandoned. Where there are no locks, nobody takes it.
    error = try_lock(file_.get(), dest_);
    if (!error.is(EWOULDBLOCK) && is_named(folder_->fd(), temporary_.c_str(), info.identity)) return {};
    error = Error::of(EBUSY, "open", dest_);
  }
  temporary_.clear();
  return error;
}

Error FileCopy::try_reflink() {
  Error error = reflink(source_->fd(), file_.get(), size_, source_->path(), dest_);
  FileInfo info;
  if (error.ok()) {
    error = stat_fd(file_.get(), dest_, &info);
    if (!error.ok()) return error;
    reflinked_ = info.identity.size == size_;
    if (reflinked_) return {};
  } else if (verdict_of(error.code) == Verdict::kStop) {
    return error;
  }
  refused_ = error.code;
  // A clone that came out short would be taken for what was copied.
  if (retry_eintr([&] { return ftruncate(file_.get(), 0); }) < 0) return Error::last("ftruncate", dest_);
  copy_ = std::make_unique<SparseCopy>(source_->fd(), file_.get(), size_, source_->path(), dest_);
  return {};
}

Error FileCopy::step(uint64_t budget, bool* done) {
  *done = true;
  if (!copy_) return {};
  Error error = copy_->step(budget);
  *done = copy_->done();
  if (error.ok() && *done) error = copy_->finish(nullptr);
  if (error.ok() && *done) error = flush(file_.get(), dest_);
  return error;
}

Error FileCopy::publish(const OwnerAndMode& owner_and_mode, bool durable) {
  FileInfo info;
  Error error = owner_and_mode.has_mode ? Error() : require_mode(file_.get(), 0600, dest_);
  if (error.ok()) error = set_owner_and_mode(file_.get(), owner_and_mode, dest_);
  if (error.ok() && durable) error = flush(file_.get(), dest_);
  if (error.ok()) error = stat_fd(file_.get(), dest_, &info);
  if (error.ok()) error = give_name();
  if (!error.ok()) return error;
  // Whoever can write to the folder can put another file in the place of the hidden name.
  if (!is_named(folder_->fd(), name_.c_str(), info.identity)) return Error::of(ESTALE, "link", dest_);
  discard();
  return {};
}

Error FileCopy::give_name() {
  if (temporary_.empty()) return link_file(file_.get(), folder_->fd(), name_.c_str(), "", dest_);
  const int folder = folder_->fd();
  if (retry_eintr([&] { return linkat(folder, temporary_.c_str(), folder, name_.c_str(), 0); }) == 0) return {};
  Error error = Error::last("link", dest_);
  if (error.is(EEXIST) || verdict_of(error.code) == Verdict::kStop) return error;
  // FAT, exFAT and many FUSE file systems have no second names.
  error = rename_file_to_free({folder, temporary_.c_str(), join(folder_->path(), temporary_)},
                              {folder, name_.c_str(), dest_});
  if (error.ok()) temporary_.clear();
  return error;
}

void FileCopy::discard() {
  if (!temporary_.empty()) unlinkat(folder_->fd(), temporary_.c_str(), 0);
  temporary_.clear();
  file_.reset();
}

}  // namespace microvm
