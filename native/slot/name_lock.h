// A lock on a slot's name, held while the slot's folder is looked at and renamed away: renameat2 takes a name, so without
// the lock another process could give the name to another slot between the look and the rename.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/fd.h"

namespace microvm {

class NameLock {
 public:
  // Tries for some milliseconds; *free is false if another process holds the lock for longer. Without space for the
  // lock file, or on a file system without such locks, the caller goes on without one: slots can be released all the
  // same.
  Error take(const ManagedFolder& managed, const std::string& slot, bool* free);

 private:
  Fd file_;
};

}  // namespace microvm
