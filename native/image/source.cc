#include "image/source.h"

#include <fcntl.h>

#include "system/file.h"

namespace microvm {

Error Source::open(const std::string& path, Ref<Source>* source, FileInfo* info) {
  Error error = stat_at(AT_FDCWD, path.c_str(), Follow::kYes, path, info);
  if (!error.ok()) return error;
  if (!info->is_regular()) return Error::of(EINVAL, "open", path);
  // The path may name something else by now, such as a FIFO: so never wait, and look at the descriptor afterwards.
  Fd fd;
  error = open_unwaiting(AT_FDCWD, path.c_str(), Follow::kYes, path, &fd);
  if (!error.ok()) return error;
  error = stat_fd(fd.get(), path, info);
  if (!error.ok()) return error;
  if (!info->is_regular()) return Error::of(EINVAL, "open", path);
  *source = Ref<Source>(new Source(std::move(fd), path));
  return {};
}

Error Source::open_at(int folder_fd, const char* name, const std::string& path, Ref<Source>* source, FileInfo* info) {
  Fd fd;
  Error error = open_file_at(folder_fd, name, path, &fd);
  if (!error.ok()) return error;
  error = stat_fd(fd.get(), path, info);
  if (!error.ok()) return error;
  if (!info->is_regular()) return Error::of(EINVAL, "open", path);
  *source = Ref<Source>(new Source(std::move(fd), path));
  return {};
}

}  // namespace microvm
