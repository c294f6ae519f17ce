// Giving a slot's image a second name in another folder, such as a jail.
#pragma once

#include <string>

#include "image/owner_mode.h"
#include "image/source.h"
#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/guarded_folder.h"
#include "system/ref.h"

namespace microvm {

enum class ExportStatus {
  kLinked,
  kRefused,  // no hardlink can be made between these two places: another way may serve
  kKept,     // linked, it would give its owner or mode to names that are others', so it was not
  kMoved,    // the slot was released, or has another image by now
};

struct ExportRequest {
  std::string slot;
  Ref<Source> image;  // of the slot
  Ref<GuardedFolder> folder;
  std::string name;  // in the folder
  OwnerAndMode owner_and_mode;
  bool keeps_owner_and_mode = false;  // as others have names of the image
  bool durable = false;
};

struct ExportOutcome {
  ExportStatus status = ExportStatus::kLinked;
  int refused = 0;  // errno of the link that could not be made
};

// A hardlink of the image, with owner and mode. The slot's export mark, which says that the second name is ours, is
// written first. Flushes mark, link and folder if `durable`. A link to the same image that is there already serves as
// well; EEXIST for anything else. A link stays, even if its owner, mode or flush failed: another export may have found
// it. The same call again completes it.
Error export_image(const ManagedFolder& managed, const ExportRequest& request, ExportOutcome* outcome);

}  // namespace microvm
