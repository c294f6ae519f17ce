// Whether some process has a file open. The kernel answers by granting a lease or not; the lease is given back at once.
#pragma once

namespace microvm {

enum class Openness {
  kFree,     // nobody else has it open in the way asked about
  kOpen,     // somebody has
  kUnknown,  // leases cannot be had here: FUSE, NFS, or a file of another owner without CAP_LEASE
};

// Does anybody have the file open for writing? `fd` must be open for reading only.
Openness open_for_writing(int fd);

// Does anybody else have the file open at all? `fd` must be this process's only descriptor of the file.
Openness open_elsewhere(int fd);

}  // namespace microvm
