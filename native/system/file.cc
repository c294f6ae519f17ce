#include "system/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "system/buffer.h"

namespace microvm {
namespace {

Error open_at(int folder_fd, const char* name, int flags, unsigned mode, std::string_view path, Fd* out) {
  int fd = retry_eintr([&] { return openat(folder_fd, name, flags | O_CLOEXEC, mode); });
  if (fd < 0) return Error::last("open", path);
  out->reset(fd);
  return {};
}

}  // namespace

Error open_folder(const std::string& path, Fd* folder) {
  return open_at(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY, 0, path, folder);
}

Error duplicate(int fd, std::string_view path, Fd* own) {
  own->reset(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  return *own ? Error() : Error::last("fcntl", path);
}

Error open_folder_at(int folder_fd, const char* name, std::string_view path, Fd* folder) {
  return open_at(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, path, folder);
}

Error make_new_folder(int folder_fd, const char* name, unsigned mode, std::string_view path) {
  if (retry_eintr([&] { return mkdirat(folder_fd, name, mode); }) < 0) return Error::last("mkdir", path);
  return {};
}

Error make_folder_at(int folder_fd, const char* name, unsigned mode, std::string_view path, Fd* folder) {
  Error error = make_new_folder(folder_fd, name, mode, path);
  FileInfo made;
  if (error.ok()) error = stat_at(folder_fd, name, Follow::kNo, path, &made);
  // The umask may take the owner's own rights.
  if (error.ok() && (made.mode & mode) != mode) error = set_mode_at(folder_fd, name, (made.mode & 07777) | mode, path);
  if (!error.ok() && !error.is(EEXIST)) return error;
  return open_folder_at(folder_fd, name, path, folder);
}

Error open_file_at(int folder_fd, const char* name, std::string_view path, Fd* file) {
  return open_unwaiting(folder_fd, name, Follow::kNo, path, file);
}

Error open_unwaiting(int folder_fd, const char* name, Follow follow, std::string_view path, Fd* file) {
  const int flags = O_RDONLY | O_NONBLOCK | (follow == Follow::kNo ? O_NOFOLLOW : 0);
  Error error = open_at(folder_fd, name, flags, 0, path, file);
  // Somebody has a lease on it: most likely this library, which looks for microseconds whether it is in use.
  for (int again = 0; again < 3 && error.is(EWOULDBLOCK); again++) {
    struct timespec pause = {0, 1'000'000};
    nanosleep(&pause, nullptr);
    error = open_at(folder_fd, name, flags, 0, path, file);
  }
  return error;
}

Error open_lock_file_at(int folder_fd, const char* name, std::string_view path, Fd* file) {
  Error error = open_at(folder_fd, name, O_RDWR | O_NOFOLLOW, 0, path, file);
  if (!error.is(ENOENT)) return error;
  error = open_at(folder_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, path, file);
  return error.ok() ? require_mode(file->get(), 0600, path) : error;
}

Error create_file_at(int folder_fd, const char* name, unsigned mode, std::string_view path, Fd* file) {
  return open_at(folder_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode, path, file);
}

Error write_small_file(int folder_fd, const char* name, std::string_view contents, bool durable, std::string_view path,
                       unsigned mode, bool restricted) {
  Fd file;
  Error error = create_file_at(folder_fd, name, mode, path, &file);
  if (error.ok() && restricted) error = require_mode(file.get(), mode, path);
  if (error.ok()) error = write_all_at(file.get(), contents.data(), contents.size(), 0, path);
  if (error.ok() && durable) error = flush(file.get(), path);
  return error;
}

Error require_mode(int fd, unsigned mode, std::string_view path) {
  FileInfo info;
  Error error = stat_fd(fd, path, &info);
  if (!error.ok() || (info.mode & mode) == mode) return error;
  if (retry_eintr([&] { return fchmod(fd, (info.mode & 07777) | mode); }) < 0) return Error::last("fchmod", path);
  return {};
}

Error set_mode_at(int folder_fd, const char* name, unsigned mode, std::string_view path) {
  if (retry_eintr([&] { return fchmodat(folder_fd, name, mode, 0); }) < 0) return Error::last("fchmodat", path);
  return {};
}

Error read_small_file(int folder_fd, const char* name, std::string_view path, SmallFile* file, uint64_t limit) {
  file->state = SmallFile::State::kUnusable;
  Fd fd;
  Error error = open_file_at(folder_fd, name, path, &fd);
  if (error.is(ENOENT)) {
    file->state = SmallFile::State::kAbsent;
    return {};
  }
  if (error.is(ELOOP) || error.is(ENXIO)) return {};  // a symbolic link; a socket or a device without a driver
  if (!error.ok()) return error;

  FileInfo info;
  error = stat_fd(fd.get(), path, &info);
  if (!error.ok()) return error;
  if (!info.is_regular() || info.identity.size > limit) return {};

  // Reads no further than its length, unless that has changed: another program may be writing the file right now.
  Buffer buffer = allocate(limit + 1);
  if (!buffer) return Error::of(ENOMEM, "malloc", path);
  size_t length = 0;
  while (length <= limit) {
    size_t count = 0;
    error = read_at(fd.get(), buffer.get() + length, limit + 1 - length, length, path, &count);
    if (!error.ok()) return error;
    length += count;
    if (count == 0 || length == info.identity.size) break;
  }
  if (length > limit) return {};
  file->contents.assign(buffer.get(), length);
  file->mtime_ns = info.identity.mtime_ns;
  file->mode = info.mode;
  file->state = SmallFile::State::kPresent;
  return {};
}

Error read_link_at(int folder_fd, const char* name, std::string_view path, std::string* target) {
  char buffer[kSmallFileLimit];
  const ssize_t length = retry_eintr([&] { return readlinkat(folder_fd, name, buffer, sizeof buffer); });
  target->clear();
  if (length >= 0) target->assign(buffer, static_cast<size_t>(length));
  return length >= 0 || errno == ENOENT || errno == EINVAL ? Error() : Error::last("readlink", path);
}

Error read_at(int fd, char* buffer, size_t length, uint64_t offset, std::string_view path, size_t* count) {
  ssize_t result = retry_eintr([&] { return pread(fd, buffer, length, static_cast<off_t>(offset)); });
  if (result < 0) return Error::last("read", path);
  *count = static_cast<size_t>(result);
  return {};
}

Error read_full_at(int fd, char* buffer, size_t length, uint64_t offset, std::string_view path, size_t* count) {
  *count = 0;
  while (*count < length) {
    size_t part = 0;
    Error error = read_at(fd, buffer + *count, length - *count, offset + *count, path, &part);
    if (!error.ok() || part == 0) return error;
    *count += part;
  }
  return {};
}

Error write_all_at(int fd, const char* data, size_t length, uint64_t offset, std::string_view path) {
  while (length > 0) {
    ssize_t result = retry_eintr([&] { return pwrite(fd, data, length, static_cast<off_t>(offset)); });
    if (result < 0) return Error::last("write", path);
    if (result == 0) return Error::of(EIO, "write", path);
    data += result;
    offset += static_cast<uint64_t>(result);
    length -= static_cast<size_t>(result);
  }
  return {};
}

Error remove_file_at(int folder_fd, const char* name, std::string_view path) {
  if (retry_eintr([&] { return unlinkat(folder_fd, name, 0); }) < 0) return Error::last("unlink", path);
  return {};
}

Error flush(int fd, std::string_view path) {
  if (retry_eintr([&] { return fsync(fd); }) < 0) return Error::last("fsync", path);
  return {};
}

Error flush_file_system(int fd, std::string_view path) {
  if (retry_eintr([&] { return syncfs(fd); }) < 0) return Error::last("syncfs", path);
  return {};
}

Error flush_at(int folder_fd, const char* name, std::string_view path) {
  Fd file;
  Error error = open_file_at(folder_fd, name, path, &file);
  if (error.is(EACCES)) return flush_file_system(folder_fd, path);
  return error.ok() ? flush(file.get(), path) : error;
}

Error flush_if_possible(int fd, std::string_view path) {
  Error error = flush(fd, path);
  return error.is(EINVAL) || error.is(EROFS) ? Error() : error;
}

}  // namespace microvm
