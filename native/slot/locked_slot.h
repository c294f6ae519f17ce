// Replacing the image of a slot that exists, under the lock on its name, which name_lock.h describes. A release takes a
// lock of that kind itself.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "slot/name_lock.h"
#include "slot/source.h"
#include "slot/staged_slot.h"
#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"
#include "system/ref.h"

namespace microvm {

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

  // Puts the staged image in the place of `image`, which must still be the slot's and as `expected`.
  Error replace(StagedSlot& staged, const Source& image, const Identity& expected, const std::string& size_stamp,
                bool refuse_in_use, Replaced* replaced);

 private:
  LockedSlot(Ref<ManagedFolder> managed, const std::string& slot) : managed_(std::move(managed)), slot_(slot) {}

  std::string path_of(const char* file) const;
  Error still_there(bool* there) const;
  Error try_replace(StagedSlot& staged, const Source& image, const Identity& expected, const std::string& size_stamp,
                    bool refuse_in_use, Replaced* replaced);
  Error flush_staged(const StagedSlot& staged, FileInfo* info);
  Error write_new_size_stamp(const std::string& size_stamp);
  Error check_replaceable(const Source& image, const Identity& expected, bool refuse_in_use, Replaced* replaced) const;
  Error name_size_stamp();
  void undo_swap(StagedSlot& staged, const Identity& grown);

  const Ref<ManagedFolder> managed_;
  const std::string slot_;
  NameLock lock_;
  Fd folder_;
};

}  // namespace microvm
