// Owner and mode of an image: fchown and fchmod.
#pragma once

#include <cstdint>
#include <string>

#include "system/error.h"
#include "system/identity.h"

namespace microvm {

struct OwnerAndMode {
  bool has_owner = false;
  uint32_t uid = 0;
  uint32_t gid = 0;
  bool has_mode = false;
  uint32_t mode = 0;

  bool empty() const { return !has_owner && !has_mode; }
};

bool has_owner_and_mode(const FileInfo& file, const OwnerAndMode& owner_and_mode);

Error set_owner_and_mode(int fd, const OwnerAndMode& owner_and_mode, const std::string& path);

}  // namespace microvm
