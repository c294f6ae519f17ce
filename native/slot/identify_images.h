// Which files the images of many slots or templates are, to find one that two of them have.
#pragma once

#include <string>
#include <vector>

#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// One for each name in the folder, of <folder>/<name>/rootfs.ext4. Inode 0 if it cannot be looked at.
Error identify_images(const std::string& folder, const std::vector<std::string>& names, Follow follow,
                      std::vector<Identity>* images);

}  // namespace microvm
