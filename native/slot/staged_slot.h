// Building a folder with an image in staging, and making it appear by one rename: as a slot, as a sealed image, or in
// the pool.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "image/image_copy.h"
#include "image/owner_mode.h"
#include "image/source.h"
#include "slot/managed_folder.h"
#include "slot/slot_state.h"
#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"
#include "system/ref.h"

namespace microvm {

enum class Rung : unsigned { kReflink = 1, kHardlink = 2, kCopy = 4 };

struct Attempt {
  Rung rung;
  int code;  // errno; 0: the clone was shorter than its source
};

// A small file beside the image.
struct Sidecar {
  std::string name;
  std::string contents;
};

struct ExpectedFile {
  std::string path;
  Identity identity;
};

// What the slots of one template have in common, decided beforehand.
struct SlotPlan {
  std::vector<Sidecar> sidecars;  // the stamps
  Identity expected;              // the source as it was when its digest was computed
  // What the digest was computed of, where that is another file than the source: the template of a sealed image.
  std::string template_path;
  Identity template_expected;
  // Files that belong to the source, such as a snapshot's memory, as they must be.
  std::vector<ExpectedFile> siblings;
  unsigned rungs = 0;     // of Rung
  bool packed = false;    // a copy is made in few extents
  bool unhashed = false;  // and not hashed on the way
  OwnerAndMode owner_and_mode;
  bool durable = false;
};

// A plan that JavaScript holds, for many slots.
class SharedPlan final : public Shared {
 public:
  explicit SharedPlan(SlotPlan plan) : plan_(std::move(plan)) {}
  const SlotPlan& get() const { return plan_; }

 private:
  const SlotPlan plan_;
};

enum class CloneStatus {
  kStaged,           // built, not yet published
  kCopyNeeded,       // no quick rung served: call copy_step() until it is done
  kCreated,          // published
  kExists,           // the slot is there already
  kTemplateChanged,  // the template is not what the plan expected
  kSourceChanged,    // the source is not what the plan expected
  kSharedInode,      // only a hardlink would do, and the plan would change the template through it
};

// A folder being built. If a step fails, ENOSPC and EDQUOT included (errno_policy.h: kStop), nothing is tried after it,
// and the destructor removes whatever was made. The implementation of publish() is in staged_slot_publish.cc.
class StagedSlot final : public Shared {
 public:
  StagedSlot(Ref<ManagedFolder> managed, Ref<Source> source, Ref<SharedPlan> plan)
      : managed_(std::move(managed)),
        source_(std::move(source)),
        shared_plan_(std::move(plan)),
        plan_(shared_plan_->get()) {}
  ~StagedSlot() override { discard(); }

  // Makes the folder and goes down the ladder: kStaged, kCopyNeeded or kSharedInode.
  Error build(CloneStatus* status);

  // For kCopyNeeded: copies about `budget` bytes; *done once the image is complete.
  Error copy_step(uint64_t budget, bool* done);

  // Flushes a copy, unless `unsettled` is among the sidecars; writes the sidecars and makes the folder appear, if its
  // image has `size` bytes: kCreated, kExists or kSourceChanged. Removes itself unless kCreated.
  Error publish(Place place, const std::string& name, uint64_t size, const std::vector<Sidecar>& sidecars,
                CloneStatus* status);

  // Closes a complete image, for others to work on by its path.
  void hand_over() { image_.reset(); }

  // For an image that takes the place of a slot's: flushes it, and moves it into the slot's folder. Where the file
  // system can, the slot's own comes here in exchange, and the same call again undoes it. Where no rename leads into
  // that folder, a reflink of the image is put there.
  Error flush_image() const;
  Error stat_image(FileInfo* info) const;
  Error swap_image(int folder_fd, std::string_view dest, bool* exchanged);
  bool durable() const { return plan_.durable; }

  void discard();

  Rung strategy() const { return strategy_; }
  const std::vector<Attempt>& attempts() const { return attempts_; }
  const Identity& source_now() const { return source_now_; }
  uint64_t copied() const { return copy_ ? copy_->position() : 0; }
  const std::string& sha256() const { return sha256_; }  // of a packed copy
  std::string image_path() const { return join(path_, kImage); }

 private:
  // Relative to the session's folder, which saves opening this one.
  std::string inside(std::string_view file) const { return join(name_, file); }
  // EBADF once it was published or discarded: without its name, names inside it would be those of the root folder.
  Error still_staged() const { return name_.empty() ? Error::of(EBADF, "open", path_) : Error(); }
  Error try_reflink(bool* done);
  Error try_hardlink(bool* done);
  Error open_to_others();
  Error create_image();
  Error start_copy();
  Error check_image(uint64_t size);
  Error write_sidecars(const std::vector<Sidecar>& sidecars);
  Error write_sidecar(const Sidecar& file, unsigned mode_bits);
  bool needs_flush(Place place, const std::vector<Sidecar>& sidecars) const;
  Error source_unchanged(bool* unchanged);
  Error reflink_over(int folder_fd, std::string_view dest);

  const Ref<ManagedFolder> managed_;
  const Ref<Source> source_;
  const Ref<SharedPlan> shared_plan_;
  const SlotPlan& plan_;
  std::string name_;
  std::string path_;
  bool modes_restricted_ = false;  // new files get fewer rights than they were made with
  Fd image_;
  std::unique_ptr<ImageCopy> copy_;
  std::string sha256_;
  Rung strategy_ = Rung::kCopy;
  std::vector<Attempt> attempts_;
  Identity source_now_;
};

}  // namespace microvm
