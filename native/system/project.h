// Project ids: how XFS and ext4 limit what a folder holds.
#pragma once

namespace microvm {

// Nothing of another id can be renamed into a folder whose id new files inherit (EXDEV). Gives `name`, and the files in
// it if it is a folder, the id of the folder `to_fd`. False if nothing had to be changed, or nothing could be.
bool adopt_project(int from_fd, const char* name, int to_fd);

}  // namespace microvm
