// Whether some process has a file open. The kernel answers by granting a lease or not; the lease is given back at once.
#pragma once

#include <string_view>

#include "system/error.h"

namespace microvm {

enum class Openness {
  kFree,       // nobody else has it open in the way asked about
  kOpen,       // somebody has
  kUnknown,    // leases cannot be had here: FUSE, NFS
  kForbidden,  // this process cannot have them: a file of another owner, without CAP_LEASE and CAP_SETUID
};

// Does anybody have the file open for writing? `fd` must be open for reading only.
Openness open_for_writing(int fd);

// Does anybody else have the file open at all? `fd` must be this process's only descriptor of the file.
Openness open_elsewhere(int fd);

// EACCES for kForbidden: for callers that must not take an image in use for an unused one. kUnknown passes, as
// docs/api.md says of slotInUse.
Error require_known(Openness openness, std::string_view path);

}  // namespace microvm
