// What an ext4 superblock says of the file system's length.
#pragma once

#include <cstdint>
#include <string_view>

#include "system/error.h"

namespace microvm {

// Whether the ext4 file system in an image of `length` bytes is as long as resize2fs makes it there. Also true if there
// is no ext4 superblock: then nothing says otherwise.
Error fills_image(int image_fd, std::string_view path, uint64_t length, bool* fills);

}  // namespace microvm
