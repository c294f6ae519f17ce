// renameat2, and what does in its place where a sandbox or the file system refuses it.
#pragma once

#include <string_view>

#include "system/error.h"

namespace microvm {

// A name in an open folder. The path is for errors.
struct Entry {
  int folder;
  const char* name;
  std::string_view path;
};

// Renames a folder to a name that must be free, or an empty folder's; EEXIST if it is neither.
Error rename_folder_to_free(const Entry& from, const Entry& to);

// Renames a file to a name that must be free: EEXIST if it is not, EOPNOTSUPP where the kernel cannot see to that.
Error rename_file_to_free(const Entry& from, const Entry& to);

// Renames, replacing a file that has the name already.
Error rename_over(const Entry& from, const Entry& to);

// Exchanges two files, so that the same call again undoes it. EINVAL or ENOSYS where that cannot be done.
Error exchange(const Entry& from, const Entry& to);

}  // namespace microvm
