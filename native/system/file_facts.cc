#include "system/file_facts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

#include "system/buffer.h"
#include "system/errno_policy.h"
#include "system/file.h"

namespace microvm {
namespace {

constexpr size_t kAttributeLimit = 65536;  // XATTR_SIZE_MAX and XATTR_LIST_MAX
constexpr size_t kPathLimit = 4096;

Error read_attribute(const std::string& path, const char* name, char* buffer, FileFacts* facts) {
  const ssize_t length = retry_eintr([&] { return lgetxattr(path.c_str(), name, buffer, kAttributeLimit); });
  if (length < 0) {
    if (errno == ENODATA) return {};
    if (!keeps_attribute(errno)) return Error::last("lgetxattr", path);
    facts->attributes.push_back({name, {}, errno});
    return {};
  }
  facts->attributes.push_back({name, std::string(buffer, static_cast<size_t>(length))});
  return {};
}

Error read_attributes(const std::string& path, FileFacts* facts) {
  char few[256];
  Buffer many;
  char* names = few;
  ssize_t length = retry_eintr([&] { return llistxattr(path.c_str(), few, sizeof few); });
  if (length < 0 && errno == ERANGE) {
    many = allocate(kAttributeLimit);
    if (!many) return Error::of(ENOMEM, "malloc", path);
    names = many.get();
    length = retry_eintr([&] { return llistxattr(path.c_str(), names, kAttributeLimit); });
  }
  if (length < 0) return lacks_attributes(errno) ? Error() : Error::last("llistxattr", path);
  if (length == 0) return {};
  Buffer value = allocate(kAttributeLimit);
  if (!value) return Error::of(ENOMEM, "malloc", path);
  for (ssize_t at = 0; at < length; at += static_cast<ssize_t>(std::strlen(names + at)) + 1) {
    Error error = read_attribute(path, names + at, value.get(), facts);
    if (!error.ok()) return error;
  }
  return {};
}

Error read_target(const std::string& path, std::string* target) {
  char buffer[kPathLimit];
  const ssize_t length = retry_eintr([&] { return readlink(path.c_str(), buffer, sizeof buffer); });
  if (length < 0) return Error::last("readlink", path);
  target->assign(buffer, static_cast<size_t>(length));
  return {};
}

}  // namespace

Error remove_default_acl(const std::string& folder) {
  if (lremovexattr(folder.c_str(), "system.posix_acl_default") == 0) return {};
  return lacks_attributes(errno) ? Error() : Error::last("lremovexattr", folder);
}

Error read_facts(const std::string& path, FileFacts* facts) {
  Error error = stat_at(AT_FDCWD, path.c_str(), Follow::kNo, path, &facts->info);
  if (!error.ok()) return error;
  if (S_ISLNK(facts->info.mode)) {
    error = read_target(path, &facts->target);
    if (!error.ok()) return error;
  }
  return read_attributes(path, facts);
}

Error read_whole(const std::string& path, uint64_t size, uint64_t inode, std::string* contents, bool* whole) {
  *whole = false;
  Fd file;
  FileInfo info;
  Error error = open_file_at(AT_FDCWD, path.c_str(), path, &file);
  if (error.ok()) error = stat_fd(file.get(), path, &info);
  if (error.is(ENOENT) || error.is(ELOOP)) return {};
  if (!error.ok() || info.identity.inode != inode || !info.is_regular()) return error;
  contents->resize(size);
  size_t count = 0;
  error = read_full_at(file.get(), contents->data(), size, 0, path, &count);
  *whole = error.ok() && count == size;
  return error;
}

Error data_ranges(const std::string& path, uint64_t size, std::vector<DataRange>* ranges) {
  Fd file;
  Error error = open_file_at(AT_FDCWD, path.c_str(), path, &file);
  if (!error.ok()) return error;
  bool reports = false;
  return data_ranges(file.get(), size, path, ranges, &reports);
}

}  // namespace microvm
