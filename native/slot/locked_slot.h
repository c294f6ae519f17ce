// Replacing the image of a slot that exists, under the lock on its name, which name_lock.h describes. A release takes a
// lock of that kind itself.
#pragma once

#include <string>

#include "image/source.h"
#include "slot/managed_folder.h"
#include "slot/name_lock.h"
#include "slot/staged_slot.h"
#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"
#include "system/ref.h"

namespace microvm {

struct Replacement {
  // Must still be the slot's, and in the state `expected`.
  Ref<Source> image;
  Identity expected;
  std::string size_stamp;  // of the new image; empty: the slot keeps what it has
  bool refuse_in_use = false;
};

// A published slot whose name is locked, so that only one caller at a time replaces its image.
class LockedSlot final : public Shared {
 public:
  // EWOULDBLOCK if another process holds the lock, ENOENT if there is no such slot (any more). Versions before 0.1.0
  // lock the slot's folder itself (flock). With `heed_older` their lock counts too; without, it does not keep
  // anybody waiting, since any user who may read the folder can hold it.
  static Error open(const Ref<ManagedFolder>& managed, const std::string& slot, bool heed_older,
                    Ref<LockedSlot>* locked);

  // The slot's image, to be cloned from.
  Error open_image(Ref<Source>* image, FileInfo* info);

  // Completes or undoes a grow whose process was killed while it published.
  Error finish_grow();

  enum class Replaced { kDone, kInUse, kImageChanged, kReleased };

  // Puts the staged image in the place of the slot's.
  Error replace(StagedSlot& staged, const Replacement& replacement, Replaced* replaced);

 private:
  LockedSlot(Ref<ManagedFolder> managed, const std::string& slot) : managed_(std::move(managed)), slot_(slot) {}

  std::string path_of(const char* file) const;
  Error still_there(bool* there) const;
  Error try_replace(StagedSlot& staged, const Replacement& replacement, Replaced* replaced);
  Error flush_staged(const StagedSlot& staged, FileInfo* info);
  Error write_new_size_stamp(const std::string& size_stamp);
  Error check_replaceable(const Replacement& replacement, Replaced* replaced) const;
  Error name_size_stamp();
  void undo_swap(StagedSlot& staged, const Identity& grown);

  const Ref<ManagedFolder> managed_;
  const std::string slot_;
  NameLock lock_;
  Fd folder_;
};

}  // namespace microvm
