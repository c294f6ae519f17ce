// Removing a folder with all that it holds.
#pragma once

#include <cstdint>
#include <string>

#include "system/error.h"

namespace microvm {

// Removes the tree `name`, of any depth, in the folder `folder_fd`, never following a symbolic link, and takes away at
// most *budget files and folders. *budget is 0 afterwards if something may be left. What another process removed
// meanwhile is not an error.
Error remove_tree(int folder_fd, const char* name, const std::string& path, uint64_t* budget);

// The names in a folder, without . and ..
class FolderReader {
 public:
  FolderReader(int folder_fd, std::string_view path);
  ~FolderReader();
  FolderReader(const FolderReader&) = delete;
  FolderReader& operator=(const FolderReader&) = delete;

  // nullptr at the end, or on an error, which error() then tells. The name lives until the next call.
  const char* next();
  const Error& error() const { return error_; }

 private:
  void* stream_ = nullptr;
  std::string path_;
  Error error_;
};

}  // namespace microvm
