// A copy of one file that appears under its name when it is complete. For folders that are not ours, such as a jail.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "image/owner_mode.h"
#include "image/source.h"
#include "image/sparse_copy.h"
#include "system/error.h"
#include "system/fd.h"
#include "system/guarded_folder.h"
#include "system/ref.h"

namespace microvm {

class FileCopy final : public Shared {
 public:
  ~FileCopy() override { discard(); }

  // Makes a file without a name in the destination's folder (O_TMPFILE): a kill leaves no trace of it. Where the file
  // system cannot do that, the file gets a hidden name, and the next copy into that folder removes what a kill leaves.
  // It shares the source's blocks if that is possible; otherwise step() copies them.
  static Error start(const Ref<Source>& source, const Ref<GuardedFolder>& folder, const std::string& name,
                     Ref<FileCopy>* copy);

  // Copies about `budget` bytes; *done once the file is complete.
  Error step(uint64_t budget, bool* done);

  // Owner and mode, a flush of the file if `durable`, and the name: EEXIST if it is taken. After a failure it has none.
  Error publish(const OwnerAndMode& owner_and_mode, bool durable);

  bool reflinked() const { return reflinked_; }
  int refused() const { return refused_; }  // errno of the reflink that could not be made
  uint64_t copied() const { return copy_ ? copy_->position() : 0; }

 private:
  FileCopy(const Ref<Source>& source, const Ref<GuardedFolder>& folder, const std::string& name)
      : source_(source), folder_(folder), name_(name), dest_(join(folder->path(), name)) {}

  Error create();
  Error create_with_hidden_name();
  Error try_reflink();
  Error give_name();
  void discard();

  const Ref<Source> source_;
  const Ref<GuardedFolder> folder_;
  const std::string name_;  // in the folder
  const std::string dest_;
  uint64_t size_ = 0;
  std::string temporary_;  // the hidden name, if it has one
  Fd file_;
  std::unique_ptr<SparseCopy> copy_;
  bool reflinked_ = false;
  int refused_ = 0;
};

}  // namespace microvm
