// The names in a slot, and what lies under them.
#pragma once

#include <string>

#include "slot/managed_folder.h"
#include "system/error.h"
#include "system/file.h"
#include "system/identity.h"

namespace microvm {

inline constexpr char kImage[] = "rootfs.ext4";
inline constexpr char kStamp[] = "rootfs.ext4.sha256";
inline constexpr char kSizeStamp[] = "rootfs.ext4.size";
inline constexpr char kNewSizeStamp[] = "rootfs.ext4.size.new";
inline constexpr char kRawId[] = "rootfs.ext4.id";
inline constexpr char kStack[] = "rootfs.ext4.stack";
inline constexpr char kExported[] = "rootfs.ext4.exported";

// What lies in a slot's folder. Nothing in it is trusted: other programs write there.
struct SlotState {
  enum class Kind {
    kAbsent,
    kFolder,
    kForeign,  // a file, a symbolic link, a device
  };
  Kind kind = Kind::kAbsent;
  Identity folder;
  bool has_image = false;
  FileInfo image;  // of whatever has the image's name; its kind is for the reader to check
  bool shares_extents = false;
  SmallFile stamp;
  SmallFile size_stamp;
  SmallFile new_size_stamp;
  SmallFile raw_id;
  SmallFile stack;
  SmallFile exported;  // looked for only where the image has several names

  // When its stamp was written; without one, when anything last got a name in it.
  int64_t created_ms() const {
    return (stamp.state == SmallFile::State::kPresent ? stamp.mtime_ns : folder.mtime_ns) / 1'000'000;
  }
};

// One of the small files.
Error read_slot_file(int slot_fd, const std::string& slot_path, const char* name, SmallFile* file);

enum class Look {
  kAll,
  kStamps,  // and the image, but not who else has its extents or its inode, which takes half as long again
};

Error read_slot(const ManagedFolder& managed, const std::string& slot, Look look, SlotState* state);

// Flushes a slot that was published without: image, stamps, its folder, and the folder that it lies in.
Error flush_slot(const ManagedFolder& managed, const std::string& slot);

}  // namespace microvm
