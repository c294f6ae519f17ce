// renameat2, and what does in its place where a sandbox or the file system refuses it.
#pragma once

#include <string_view>

#include "system/error.h"

namespace microvm {

// Renames a folder to a name that must be free, or an empty folder's; EEXIST if it is neither.
Error rename_folder_to_free(int from_fd, const char* from, int to_fd, const char* to, std::string_view path,
                            std::string_view dest);

// Renames a file to a name that must be free: EEXIST if it is not, EOPNOTSUPP where the kernel cannot see to that.
Error rename_file_to_free(int from_fd, const char* from, int to_fd, const char* to, std::string_view path,
                          std::string_view dest);

// Renames, replacing a file that has the name already.
Error rename_over(int from_fd, const char* from, int to_fd, const char* to, std::string_view path,
                  std::string_view dest);

// Exchanges two files, so that the same call again undoes it. EINVAL or ENOSYS where that cannot be done.
Error exchange(int from_fd, const char* from, int to_fd, const char* to, std::string_view path, std::string_view dest);

}  // namespace microvm
