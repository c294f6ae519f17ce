// Removing a folder with all that it holds.
#pragma once

#include <cstdint>
#include <string>

#include "system/error.h"
#include "system/fd.h"

namespace microvm {

// Removes the tree `name`, of any depth, in the folder `folder_fd`, never following a symbolic link, and takes away at
// most *budget files and folders, and as many more as it is deep. *budget is 0 afterwards if something may be left.
// What another process removed meanwhile is not an error.
Error remove_tree(int folder_fd, const char* name, const std::string& path, uint64_t* budget);

// The names in a folder, without . and ..
class FolderReader {
 public:
  FolderReader(int folder_fd, std::string_view path);
  // Of the folder that the path leads to, by symbolic links as well.
  explicit FolderReader(const std::string& path);
  ~FolderReader();
  FolderReader(const FolderReader&) = delete;
  FolderReader& operator=(const FolderReader&) = delete;

  // nullptr at the end, or on an error, which error() then returns. The name lives until the next call.
  const char* next();
  // The d_type of the name that next() returned: DT_UNKNOWN where the file system does not say.
  unsigned char type() const { return type_; }
  const Error& error() const { return error_; }

 private:
  void start(Fd folder);

  void* stream_ = nullptr;
  unsigned char type_ = 0;
  std::string path_;
  Error error_;
};

}  // namespace microvm
