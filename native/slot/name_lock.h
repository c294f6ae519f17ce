// Locks on names of slots and stacks. They lie in our own folder, which nobody else can enter: a folder of a slot can
// be opened, and locked for ever, by any user of the host.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/fd.h"

namespace microvm {

class NameLock {
 public:
  enum class For {
    // Held while the slot's folder is looked at and renamed away: renameat2 takes a name, so without the lock another
    // process could give the name to another slot between the look and the rename. Tried for some milliseconds.
    kRelease,
    // Held while an image is put in the place of another. Tried once.
    kReplace,
  };

  // *free is false if another holds the lock. Without space for the lock file, or on a file system without such locks,
  // the caller goes on without one: slots can be released all the same.
  Error take(const ManagedFolder& managed, const std::string& name, For purpose, bool* free);

 private:
  Fd file_;
};

}  // namespace microvm
