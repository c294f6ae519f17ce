#include "image/owner_mode.h"

#include <sys/stat.h>
#include <unistd.h>

namespace microvm {

bool has_owner_and_mode(const FileInfo& file, const OwnerAndMode& wanted) {
  return (!wanted.has_owner || (file.uid == wanted.uid && file.gid == wanted.gid)) &&
         (!wanted.has_mode || (file.mode & 07777) == wanted.mode);
}

// Mode before owner: whoever has only CAP_CHOWN may not change the mode of a file that it has given away. Changing the
// owner clears set-id bits, which no mode here has.
Error set_owner_and_mode(int fd, const OwnerAndMode& owner_and_mode, const std::string& path) {
  if (owner_and_mode.has_mode && retry_eintr([&] { return fchmod(fd, owner_and_mode.mode); }) < 0) {
    return Error::last("fchmod", path);
  }
  if (owner_and_mode.has_owner && retry_eintr([&] { return fchown(fd, owner_and_mode.uid, owner_and_mode.gid); }) < 0) {
    return Error::last("fchown", path);
  }
  return {};
}

}  // namespace microvm
