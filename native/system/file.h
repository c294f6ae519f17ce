// Opening files relative to a folder, and reading, writing and flushing them whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"

namespace microvm {

// The mode of small files.
constexpr unsigned kSmallFileMode = 0644;

// A folder by path, following symbolic links: for the folders that the operator configured.
Error open_folder(const std::string& path, Fd* folder);

// A descriptor of our own for what `fd` has open.
Error duplicate(int fd, std::string_view path, Fd* own);

// A folder by its name in another; never through a symbolic link (ELOOP or ENOTDIR).
Error open_folder_at(int folder_fd, const char* name, std::string_view path, Fd* folder);

// A folder that is not there yet (EEXIST).
Error make_new_folder(int folder_fd, const char* name, unsigned mode, std::string_view path);

// A folder that is made if it is not there, with at least this mode whatever the umask.
Error make_folder_at(int folder_fd, const char* name, unsigned mode, std::string_view path, Fd* folder);

// A file for reading, never waiting for a FIFO's writer nor following a symbolic link.
Error open_file_at(int folder_fd, const char* name, std::string_view path, Fd* file);

// The same, following a symbolic link or not. EWOULDBLOCK if somebody holds a lease on the file.
Error open_unwaiting(int folder_fd, const char* name, Follow follow, std::string_view path, Fd* file);

// An empty file that only its owner can open, made if it is not there: for locks.
Error open_lock_file_at(int folder_fd, const char* name, std::string_view path, Fd* file);

// A new file, EEXIST if the name is taken.
Error create_file_at(int folder_fd, const char* name, unsigned mode, std::string_view path, Fd* file);

// A new file with these contents, flushed if `durable`. `restricted`: unless it is known that the umask takes nothing.
Error write_small_file(int folder_fd, const char* name, std::string_view contents, bool durable, std::string_view path,
                       unsigned mode = kSmallFileMode, bool restricted = true);

// Gives back what the umask took of the mode that a new file was made with.
Error require_mode(int fd, unsigned mode, std::string_view path);

// The permission bits of a file or folder of ours. Follows a symbolic link: for names that nobody else can change.
Error set_mode_at(int folder_fd, const char* name, unsigned mode, std::string_view path);

// Above what any stamp and any raw id can be.
constexpr uint64_t kSmallFileLimit = 4096;

// What a small file that other programs may have written turned out to be.
struct SmallFile {
  enum class State { kAbsent, kPresent, kUnusable };  // unusable: a link, a folder, a device, or too large
  State state = State::kAbsent;
  std::string contents;
  TimeNs mtime_ns = 0;
  uint32_t mode = 0;
};

Error read_small_file(int folder_fd, const char* name, std::string_view path, SmallFile* file,
                      uint64_t limit = kSmallFileLimit);

// What a symbolic link holds; empty if there is none, or something else has the name.
Error read_link_at(int folder_fd, const char* name, std::string_view path, std::string* target);

// One read at an offset; *count is 0 at the end of the file.
Error read_at(int fd, char* buffer, size_t length, uint64_t offset, std::string_view path, size_t* count);

// As much as the file has, up to `length`: less only at its end.
Error read_full_at(int fd, char* buffer, size_t length, uint64_t offset, std::string_view path, size_t* count);

Error write_all_at(int fd, const char* data, size_t length, uint64_t offset, std::string_view path);

Error remove_file_at(int folder_fd, const char* name, std::string_view path);

// fsync, also of folders.
Error flush(int fd, std::string_view path);

// syncfs: the whole file system that a file or folder is on.
Error flush_file_system(int fd, std::string_view path);

// fsync of a file by its name. One that this process may not open, as it has given it away, is flushed with its whole
// file system.
Error flush_at(int folder_fd, const char* name, std::string_view path);

// fsync of a file that is only read. On a read-only file system (squashfs and erofs: EINVAL) it is as flushed as it
// will ever be.
Error flush_if_possible(int fd, std::string_view path);

}  // namespace microvm
