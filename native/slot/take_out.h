// Taking a published folder away by two renames: into this session's folder, where nobody else touches it and where it
// can be compared with what was meant; then into trash, or back. managed_folder.h says who may do that.
//
// A process can die between the two. So what it took out has a name that says which folder was meant: <slot>.<inode>.
// Whoever sweeps a dead session puts back what was not meant, and removes the rest.
#pragma once

#include <functional>
#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/identity.h"

namespace microvm {

// Asked under the lock of the slot's name: whether it may still go.
using MayGo = std::function<Error(bool* may_go)>;

// Moves a slot, or a snapshot, into trash if its folder is still the file `expected`, which the caller must hold open
// so that its inode cannot be given to another. *trashed is false if it is another one by now, if it may not go, or if
// another process is just taking it.
Error trash_slot(ManagedFolder& managed, const std::string& slot, const Identity& expected, const MayGo& ask,
                 bool* trashed);

// Moves a sealed image or a ready slot, which only this library uses, into trash. That it is gone already is no error.
Error discard_folder(ManagedFolder& managed, Place place, const std::string& name);

// Puts what a dead session took out by mistake back under its name. A slot whose name has been given to
// another one since then stays where it is.
Error put_back_strays(const ManagedFolder& managed, int session_fd, const std::string& session_path);

}  // namespace microvm
