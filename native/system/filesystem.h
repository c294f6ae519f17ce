// Which file system a file lies on, beyond the numbers of devices, which are given again.
#pragma once

#include <string>
#include <string_view>

#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// A text that no other file system has, also after it was mounted elsewhere or the host was started again: its kind and
// UUID, and on btrfs the subvolume, since inode numbers are a subvolume's own. Empty where there is none to trust.
//
// Only for file systems whose times of last change are set by the kernel alone. An image of squashfs, erofs or ISO 9660
// is made by a program, and two versions of it can have the same UUID and files with the same numbers and times.
std::string filesystem_id(int fd);

// The same of the file at `path`, which has the identity `expected`: asked of its folder where that can be, since files
// that are known need not be opened.
std::string filesystem_id_of_path(const std::string& path, const Identity& expected);

}  // namespace microvm
