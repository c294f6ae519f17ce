#include "slot/slot_state.h"

#include "slot/export_mark.h"
#include "slot/spelling.h"
#include "system/errno_policy.h"
#include "system/extents.h"
#include "system/fd.h"
#include "system/tree.h"

namespace microvm {
namespace {

Error read_image(int folder_fd, const std::string& path, Look look, SlotState* state) {
  Error error = stat_at(folder_fd, kImage, Follow::kNo, path, &state->image);
  if (error.is(ENOENT)) return {};
  if (!error.ok()) return error;
  state->has_image = true;
  if (!state->image.is_regular() || look != Look::kAll) return {};
  Fd image;
  if (open_file_at(folder_fd, kImage, path, &image).ok()) state->shares_extents = shares_extents(image.get());
  return {};
}

// What has changed between two looks at a slot's image.
enum class Changed { kNothing, kLength, kFile };

// Looks at the image once more.
Error compare_image(int folder_fd, const std::string& path, const SlotState& state, Changed* changed) {
  FileInfo now;
  Error error = stat_at(folder_fd, kImage, Follow::kNo, path, &now);
  const bool same_file =
      error.ok() ? state.has_image && now.identity.same_file(state.image.identity) : !state.has_image;
  *changed = !same_file                                                     ? Changed::kFile
             : error.ok() && now.identity.size != state.image.identity.size ? Changed::kLength
                                                                            : Changed::kNothing;
  return error.is(ENOENT) ? Error() : error;
}

bool is_there(const SmallFile& file) { return file.state != SmallFile::State::kAbsent; }

// A mark that a power cut has emptied says the same as a whole one. The mark of an image that was replaced says
// nothing.
Error read_link_mark(int folder_fd, const std::string& path, SlotState* state) {
  SmallFile mark;
  Error error = read_slot_file(folder_fd, path, kLinked, &mark);
  state->linked = mark.state == SmallFile::State::kPresent &&
                  (mark.contents.empty() || mark.contents == decimal(state->image.identity.inode));
  return error;
}

Error look_for_sidecars(int folder_fd, const std::string& path, SlotState* state) {
  state->has_sidecars = is_there(state->stamp) || is_there(state->size_stamp) || is_there(state->new_size_stamp) ||
                        is_there(state->raw_id) || is_there(state->stack);
  for (const char* name : kSlotFiles) {
    if (state->has_sidecars) break;
    if (std::string_view(name) == kImage) continue;
    FileInfo info;
    Error error = stat_at(folder_fd, name, Follow::kNo, join(path, name), &info);
    if (!error.ok() && !error.is(ENOENT)) return error;
    state->has_sidecars = error.ok();
  }
  return {};
}

struct OpenSlot {
  const ManagedFolder& managed;
  const std::string& slot;
  const std::string& path;
  int fd;
};

// A slot without a raw id, whose folder really has another name than it was found by: it belongs to the VM of that
// name.
Error read_owner_by_name(const OpenSlot& open, SlotState* state) {
  std::string name;
  Error error = real_name(open.managed, open.slot, state->folder, &name);
  if (error.ok() && name != open.slot) {
    state->raw_id.state = SmallFile::State::kPresent;
    state->raw_id.contents = name;
  }
  return error;
}

Error read_files(const OpenSlot& open, Look look, SlotState* state, Changed* changed) {
  const int fd = open.fd;
  const std::string& path = open.path;
  // A grow writes the new stamp, then the image, then gives the stamp its name. So the new stamp is read before the one
  // that it becomes, and between two looks at the image. Otherwise old and new would mix, and the slot would look torn.
  Error error = read_image(fd, join(path, kImage), look, state);
  if (error.ok()) error = read_slot_file(fd, path, kNewSizeStamp, &state->new_size_stamp);
  if (error.ok()) error = read_slot_file(fd, path, kSizeStamp, &state->size_stamp);
  if (error.ok()) error = compare_image(fd, join(path, kImage), *state, changed);
  if (error.ok()) error = read_slot_file(fd, path, kStamp, &state->stamp);
  if (error.ok()) error = read_raw_id(fd, path, state->stamp, &state->raw_id);
  if (error.ok() && look != Look::kListed && !is_there(state->raw_id)) error = read_owner_by_name(open, state);
  if (error.ok()) error = read_slot_file(fd, path, kStack, &state->stack);
  if (error.ok()) error = read_slot_file(fd, path, kUnsettled, &state->unsettled);
  if (error.ok() && look == Look::kAll && state->image.identity.links > 1) {
    error = count_exported(fd, path, state->image.identity, &state->exported_names);
    if (error.ok()) error = read_link_mark(fd, path, state);
  }
  if (error.ok()) error = look_for_sidecars(fd, path, state);
  return error;
}

Error read_once(const ManagedFolder& managed, const std::string& slot, Look look, SlotState* state, Changed* changed) {
  *state = SlotState();
  *changed = Changed::kNothing;
  const std::string path = managed.slot_path(slot);
  Fd folder;
  Error error = open_folder_at(managed.root_fd(), slot.c_str(), path, &folder);
  if (error.is(ENOENT)) return {};
  if (is_no_folder(error.code)) {
    state->kind = SlotState::Kind::kNotAFolder;
    return {};
  }
  if (!error.ok()) return error;
  state->kind = SlotState::Kind::kFolder;

  const int fd = folder.get();
  FileInfo info;
  error = stat_fd(fd, path, &info);
  if (!error.ok()) return error;
  state->folder = info.identity;
  error = read_files({managed, slot, path, fd}, look, state, changed);
  // A folder that has the image's name is nothing that this library or a VMM makes.
  if (state->image.is_folder() && !state->has_sidecars) state->has_image = false;
  if (error.ok() && !state->has_image && !state->has_sidecars && !info.mount_root) {
    FolderReader reader(fd, path);
    // An empty folder is as good as none, and a clone takes its place.
    if (reader.next() == nullptr && reader.error().ok()) *state = SlotState();
  }
  if (!error.ok() || *changed == Changed::kFile) return error;

  FileInfo at_path;
  error = stat_at(managed.root_fd(), slot.c_str(), Follow::kNo, path, &at_path);
  if (!error.ok() || !at_path.identity.same_file(info.identity)) *changed = Changed::kFile;
  return error.is(ENOENT) ? Error() : error;
}

// Whoever owns the image may change its length as often as they like.
constexpr int kLengthRounds = 4;
constexpr int kRounds = 64;

}  // namespace

Error read_slot_file(int slot_fd, const std::string& slot_path, const char* name, SmallFile* file) {
  Error error = read_small_file(slot_fd, name, join(slot_path, name), file);
  // After a power cut ext4 can leave a file of the right length whose bytes never reached the disk.
  if (file->contents.find_first_not_of('\0') == std::string::npos) file->contents.clear();
  return error;
}

Error read_raw_id(int slot_fd, const std::string& slot_path, const SmallFile& stamp, SmallFile* raw_id) {
  Error error = read_slot_file(slot_fd, slot_path, kRawId, raw_id);
  if (!error.ok() || is_there(*raw_id) || (stamp.mode & kStampOfRawId) == 0) return error;
  // `chmod -R 1777` gives the bit to the folder as well. A slot's folder is made without it.
  FileInfo folder;
  error = stat_fd(slot_fd, slot_path, &folder);
  // As empty as a power cut leaves others of its kind.
  if (error.ok() && (folder.mode & kStampOfRawId) == 0) raw_id->state = SmallFile::State::kPresent;
  return error;
}

Error read_slot(const ManagedFolder& managed, const std::string& slot, Look look, SlotState* state) {
  for (int round = 1; round <= kRounds; round++) {
    Changed changed = Changed::kNothing;
    Error error = read_once(managed, slot, look, state, &changed);
    if (!error.ok() || changed == Changed::kNothing) return error;
    // A grow gives the slot another file. A length that keeps changing in the same file is its owner's doing: then the
    // last length that was seen counts.
    if (changed == Changed::kLength && round >= kLengthRounds) return {};
  }
  return Error::of(EBUSY, "open", managed.slot_path(slot));
}

namespace {

Error flush_files(int folder_fd, const std::string& path) {
  for (const char* name : kSlotFiles) {
    Error error = flush_at(folder_fd, name, join(path, name));
    if (!error.ok() && !error.is(ENOENT)) return error;
  }
  // The image's data is on the disk now.
  Error error = remove_file_at(folder_fd, kUnsettled, join(path, kUnsettled));
  if (!error.ok() && !error.is(ENOENT)) return error;
  return flush(folder_fd, path);
}

}  // namespace

Error flush_slot(const ManagedFolder& managed, const std::string& slot, const Identity& expected, bool* same) {
  const std::string path = managed.slot_path(slot);
  Fd folder;
  FileInfo info;
  *same = false;
  Error error = open_folder_at(managed.root_fd(), slot.c_str(), path, &folder);
  if (error.is(ENOENT)) return {};
  if (error.ok()) error = stat_fd(folder.get(), path, &info);
  if (!error.ok() || !info.identity.identical(expected)) return error;
  error = flush_files(folder.get(), path);
  if (error.ok()) error = flush(managed.root_fd(), managed.root_path());
  if (!error.ok()) return error.after_change();
  error = stat_at(managed.root_fd(), slot.c_str(), Follow::kNo, path, &info);
  *same = error.ok() && info.identity.same_file(expected);
  return error.is(ENOENT) ? Error() : error;
}

}  // namespace microvm
