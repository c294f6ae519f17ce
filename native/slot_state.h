// The names in a slot, and what lies under them.
#pragma once

#include <string>

#include "error.h"
#include "file.h"
#include "identity.h"
#include "store.h"

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
};

Error read_slot(const Store& store, const std::string& slot, SlotState* state);

// Flushes a slot that was published without: image, stamps, its folder, and the folder that it lies in.
Error flush_slot(const Store& store, const std::string& slot);

}  // namespace microvm
