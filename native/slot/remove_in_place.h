// Removing a folder of ours where it lies, for when it can't be renamed into trash: the disk is full (btrfs needs space
// for a rename, not for an unlink), or the folder lies in the lower layer of an overlay (EXDEV). managed_folder.h says
// who may do that.
#pragma once

#include <string>

#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// A process that dies on the way leaves a folder that nobody takes for a whole slot or snapshot, and the same call goes
// on with it: of our files the image is removed first, and the stamp, or a snapshot's manifest, last. *removed is false
// if the name is not that of the folder `expected` any more; nullptr takes any.
Error remove_in_place(int parent_fd, const char* name, const std::string& path, const Identity* expected,
                      bool* removed);

}  // namespace microvm
