// Project ids: how XFS and ext4 limit what a folder holds.
#pragma once

namespace microvm {

// With an id that new files inherit, a folder takes nothing of another id by a rename (EXDEV). Gives `name`, and the
// files in it if it is a folder, the id of the folder `to_fd`. False if nothing had to be changed, or could be.
bool adopt_project(int from_fd, const char* name, int to_fd);

}  // namespace microvm
