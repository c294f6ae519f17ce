// Every file that this library may put into a slot. This is the only list of their names. src/slot/stamps.ts names
// those that TypeScript reads or writes, and a test looks for them here.
#pragma once

#include <iterator>
#include <string_view>

namespace microvm {

inline constexpr char kImage[] = "rootfs.ext4";
inline constexpr char kNewImage[] = "rootfs.ext4.new";
inline constexpr char kStamp[] = "rootfs.ext4.sha256";
inline constexpr char kSizeStamp[] = "rootfs.ext4.size";
inline constexpr char kNewSizeStamp[] = "rootfs.ext4.size.new";
inline constexpr char kRawId[] = "rootfs.ext4.id";
inline constexpr char kStack[] = "rootfs.ext4.stack";
inline constexpr char kExported[] = "rootfs.ext4.exported";
inline constexpr char kLinked[] = "rootfs.ext4.linked";
inline constexpr char kUnsettled[] = "rootfs.ext4.unsettled";

// In the order in which they are flushed. The stamp comes last because it makes a slot of the others: a power cut in
// between must not leave a stamp without the raw id or the size that belongs to it.
inline constexpr const char* kSlotFiles[] = {kRawId,  kStack,     kSizeStamp, kNewSizeStamp, kExported,
                                             kLinked, kUnsettled, kNewImage,  kImage,        kStamp};

// In the order in which they are removed one by one. Without its image a slot is torn; until the end its raw id and its
// stamp say whose it was.
inline constexpr const char* kSlotFilesToRemove[] = {kImage,    kNewImage, kNewSizeStamp, kSizeStamp, kStack,
                                                     kExported, kLinked,   kUnsettled,    kRawId,     kStamp};
static_assert(std::size(kSlotFilesToRemove) == std::size(kSlotFiles));

inline bool is_slot_file(std::string_view name) {
  for (const char* file : kSlotFiles) {
    if (name == file) return true;
  }
  return false;
}

}  // namespace microvm
