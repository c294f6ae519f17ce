// An open image that clones or digests are made from.
#pragma once

#include <string>

#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"
#include "system/ref.h"

namespace microvm {

class Source final : public Shared {
 public:
  // A regular file by path, following symbolic links. EINVAL with syscall "open" for anything but a regular file, which
  // is not opened: opening a device can have effects.
  static Error open(const std::string& path, Ref<Source>* source, FileInfo* info);

  // A regular file in a folder, never through a symbolic link.
  static Error open_at(int folder_fd, const char* name, const std::string& path, Ref<Source>* source, FileInfo* info);

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  Source(Fd fd, const std::string& path) : fd_(std::move(fd)), path_(path) {}

  const Fd fd_;
  const std::string path_;
};

}  // namespace microvm
