// What lies in a slot's folder.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "slot/slot_files.h"
#include "system/error.h"
#include "system/file.h"
#include "system/identity.h"

namespace microvm {

// Nothing in it is trusted: other programs write there.
struct SlotState {
  enum class Kind {
    kAbsent,
    kFolder,
    kNotAFolder,  // a file, a symbolic link, a device
  };
  Kind kind = Kind::kAbsent;
  Identity folder;
  bool has_image = false;
  FileInfo image;             // of whatever has the image's name: the reader checks that it is a regular file
  bool has_sidecars = false;  // one of our files other than the image is there, be it empty
  bool shares_extents = false;
  SmallFile stamp;
  SmallFile size_stamp;
  SmallFile new_size_stamp;
  SmallFile raw_id;
  SmallFile stack;
  SmallFile unsettled;  // the boot in which the image was copied, until its data has been flushed
  // Looked for only where the image has several names.
  uint64_t exported_names = 0;  // how many of them exportTo made
  bool linked = false;          // made as a hardlink: somebody else has the image as well, whether we know who or not

  // When its stamp was written; without a stamp, when a name in the folder last changed.
  int64_t created_ms() const {
    return static_cast<int64_t>((stamp.state == SmallFile::State::kPresent ? stamp.mtime_ns : folder.mtime_ns) /
                                1'000'000);
  }
};

// One of the small files.
Error read_slot_file(int slot_fd, const std::string& slot_path, const char* name, SmallFile* file);

// A slot with a raw id has a stamp with this bit, which the kernel ignores on regular files. A power cut can bring back
// the stamp without the raw id: the bit then says that something is missing, and the slot is nobody's. It says nothing
// where the slot's folder has it too.
inline constexpr uint32_t kStampOfRawId = 01000;

// The raw id: present and empty if the stamp says that there must be one and there is none.
Error read_raw_id(int slot_fd, const std::string& slot_path, const SmallFile& stamp, SmallFile* raw_id);

enum class Look {
  kAll,
  kListed,  // like kStamps, of a name that was read from the clones folder
  kStamps,  // not who shares the image's extents or has a name of its inode, which would take half as long again
};

Error read_slot(const ManagedFolder& managed, const std::string& slot, Look look, SlotState* state);

// Flushes a slot: its files, its folder, and the folder that it lies in. *same is false, and nothing is promised, if
// the slot's folder is not in the state `expected` or has lost its name by the end.
Error flush_slot(const ManagedFolder& managed, const std::string& slot, const Identity& expected, bool* same);

}  // namespace microvm
