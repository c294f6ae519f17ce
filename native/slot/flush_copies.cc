#include "slot/flush_copies.h"

#include <algorithm>

#include "slot/slot_state.h"
#include "system/errno_policy.h"
#include "system/fd.h"
#include "system/file.h"

namespace microvm {
namespace {

struct UnflushedSlot {
  std::string path;
  Fd folder;
};

// Another program may write it in upper case or with a line's end: parseBootId reads it in the same way.
bool is_id(std::string_view text, std::string_view id) {
  constexpr char kSpaces[] = " \t\n\v\f\r";
  const size_t start = std::min(text.find_first_not_of(kSpaces), text.size());
  text = text.substr(start, text.find_last_not_of(kSpaces) + 1 - start);
  return std::equal(text.begin(), text.end(), id.begin(), id.end(), [](char a, char b) { return (a | 0x20) == b; });
}

Error open_unflushed(const ManagedFolder& managed, const std::string& slot, const std::string& boot_id,
                     std::vector<UnflushedSlot>* unflushed) {
  UnflushedSlot found = {managed.slot_path(slot), Fd()};
  Error error = open_folder_at(managed.root_fd(), slot.c_str(), found.path, &found.folder);
  if (error.is(ENOENT) || is_no_folder(error.code)) return {};
  SmallFile unsettled;
  if (error.ok()) error = read_slot_file(found.folder.get(), found.path, kUnsettled, &unsettled);
  // What another boot left is torn: its data may be lost, so the file stays.
  if (error.ok() && is_id(unsettled.contents, boot_id)) unflushed->push_back(std::move(found));
  return error;
}

// By the descriptor of the folder: another slot may have its name now.
Error flush_copied(const UnflushedSlot& slot, bool all_flushed) {
  Fd image;
  Error error = open_file_at(slot.folder.get(), kImage, join(slot.path, kImage), &image);
  // syncfs(2) reports no failed write before Linux 5.8. Its data is on the disk already, so this takes microseconds.
  if (error.ok()) error = flush(image.get(), join(slot.path, kImage));
  // Given to its VMM by a process that may not open it any more: syncfs(2) has to do.
  if (error.ok() || (error.is(EACCES) && all_flushed))
    error = remove_file_at(slot.folder.get(), kUnsettled, join(slot.path, kUnsettled));
  // Released, or flushed by another process; or its VMM holds a lease, and a later call flushes it; or its image is now
  // a link, a pipe or a device, and not ours.
  const bool is_nothing = error.is(ENOENT) || error.is(EAGAIN) || error.is(ELOOP) || error.is(EINVAL);
  return is_nothing ? Error() : error;
}

}  // namespace

Error flush_copied_slots(const ManagedFolder& managed, const std::vector<std::string>& slots,
                         const std::string& boot_id) {
  std::vector<UnflushedSlot> unflushed;
  Error first;
  const auto keep = [&first](Error error) {
    if (first.ok()) first = std::move(error);
  };
  for (const std::string& slot : slots) keep(open_unflushed(managed, slot, boot_id, &unflushed));
  if (unflushed.empty()) return first;
  // Not fsync of each image: it holds the image open for seconds, and the slot would look in use to others.
  Error flushed = flush_file_system(managed.root_fd(), managed.root_path());
  // A sandbox may refuse syncfs(2): then it has to be fsync after all.
  if (!flushed.ok() && !is_refused(flushed.code)) return flushed;
  for (const UnflushedSlot& slot : unflushed) keep(flush_copied(slot, flushed.ok()));
  return first;
}

}  // namespace microvm
