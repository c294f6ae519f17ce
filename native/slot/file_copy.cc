#include "slot/file_copy.h"

#include <fcntl.h>
#include <unistd.h>

#include "system/errno_policy.h"
#include "system/file.h"
#include "system/identity.h"
#include "system/reflink.h"

namespace microvm {

Error FileCopy::start(const Ref<Source>& source, const std::string& dest, Ref<FileCopy>* out) {
  Ref<FileCopy> copy(new FileCopy(source, dest));
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
  const size_t slash = dest_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : dest_.substr(0, slash);
  name_ = slash == std::string::npos ? dest_ : dest_.substr(slash + 1);
  Error error = open_folder(folder, &folder_);
  if (!error.ok()) return error;
  // Noticed before the work is done; whoever is quicker is noticed in the end.
  FileInfo there;
  if (stat_at(folder_.get(), name_.c_str(), Follow::kNo, dest_, &there).ok()) return Error::of(EEXIST, "open", dest_);
  file_.reset(retry_eintr([&] { return openat(folder_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); }));
  if (file_) return {};
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) return Error::last("open", folder);
  temporary_ = "." + name_ + "." + decimal(static_cast<uint64_t>(getpid())) + ".tmp";
  error = create_file_at(folder_.get(), temporary_.c_str(), 0600, join(folder, temporary_), &file_);
  if (!error.ok()) temporary_.clear();
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
  Error error = set_owner_and_mode(file_.get(), owner_and_mode, dest_);
  if (error.ok() && durable) error = flush(file_.get(), dest_);
  if (!error.ok()) return error;
  // Without AT_EMPTY_PATH, which asks for a capability: open(2), O_TMPFILE.
  const std::string from =
      temporary_.empty() ? "/proc/self/fd/" + decimal(static_cast<uint64_t>(file_.get())) : temporary_;
  const int from_folder = temporary_.empty() ? AT_FDCWD : folder_.get();
  if (retry_eintr([&] {
        return linkat(from_folder, from.c_str(), folder_.get(), name_.c_str(),
                      temporary_.empty() ? AT_SYMLINK_FOLLOW : 0);
      }) < 0) {
    return Error::last("link", dest_);
  }
  discard();
  return durable ? flush(folder_.get(), dest_) : Error();
}

void FileCopy::discard() {
  if (!temporary_.empty()) unlinkat(folder_.get(), temporary_.c_str(), 0);
  temporary_.clear();
  file_.reset();
}

}  // namespace microvm
