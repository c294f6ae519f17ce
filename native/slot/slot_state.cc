#include "slot/slot_state.h"

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
  if (!state->image.is_regular() || look == Look::kStamps) return {};
  Fd image;
  if (open_file_at(folder_fd, kImage, path, &image).ok()) state->shares_extents = shares_extents(image.get());
  return {};
}

// Whether the slot's image is still the one that was looked at first.
Error is_same_image(int folder_fd, const std::string& path, const SlotState& state, bool* same) {
  FileInfo now;
  Error error = stat_at(folder_fd, kImage, Follow::kNo, path, &now);
  *same = error.ok() ? state.has_image && now.identity.same_image(state.image.identity) : !state.has_image;
  return error.is(ENOENT) ? Error() : error;
}

bool is_absent(const SmallFile& file) { return file.state == SmallFile::State::kAbsent; }

// Neither an image nor a stamp.
bool is_bare(const SlotState& state) {
  return !state.has_image && is_absent(state.stamp) && is_absent(state.size_stamp) && is_absent(state.new_size_stamp) &&
         is_absent(state.raw_id);
}

Error read_once(const ManagedFolder& managed, const std::string& slot, Look look, SlotState* state, bool* unchanged) {
  *state = SlotState();
  *unchanged = true;
  const std::string path = managed.slot_path(slot);
  Fd folder;
  Error error = open_folder_at(managed.clones_fd(), slot.c_str(), path, &folder);
  if (error.is(ENOENT)) return {};
  if (error.is(ENOTDIR) || error.is(ELOOP)) {
    state->kind = SlotState::Kind::kForeign;
    return {};
  }
  if (!error.ok()) return error;
  state->kind = SlotState::Kind::kFolder;

  const int fd = folder.get();
  FileInfo info;
  error = stat_fd(fd, path, &info);
  if (!error.ok()) return error;
  state->folder = info.identity;
  // A grow writes the new stamp, then the image, then gives the stamp its name. So the new stamp is looked for before
  // the one that it becomes, and between two looks at the image: or old and new would be mixed, which looks torn.
  error = read_image(fd, join(path, kImage), look, state);
  if (error.ok()) error = read_slot_file(fd, path, kNewSizeStamp, &state->new_size_stamp);
  if (error.ok()) error = read_slot_file(fd, path, kSizeStamp, &state->size_stamp);
  if (error.ok()) error = is_same_image(fd, join(path, kImage), *state, unchanged);
  if (error.ok()) error = read_slot_file(fd, path, kStamp, &state->stamp);
  if (error.ok()) error = read_slot_file(fd, path, kRawId, &state->raw_id);
  if (error.ok()) error = read_slot_file(fd, path, kStack, &state->stack);
  if (error.ok() && look == Look::kAll && state->image.identity.links > 1) {
    error = read_slot_file(fd, path, kExported, &state->exported);
  }
  if (error.ok() && is_bare(*state) && !info.mount_root) {
    FolderReader reader(fd, path);
    // An empty folder is as good as none, and a clone takes its place.
    if (reader.next() == nullptr && reader.error().ok()) *state = SlotState();
  }
  if (!error.ok() || !*unchanged) return error;

  FileInfo at_path;
  error = stat_at(managed.clones_fd(), slot.c_str(), Follow::kNo, path, &at_path);
  *unchanged = error.ok() && at_path.identity.same_file(info.identity);
  return error.is(ENOENT) ? Error() : error;
}

}  // namespace

Error read_slot_file(int slot_fd, const std::string& slot_path, const char* name, SmallFile* file) {
  return read_small_file(slot_fd, name, join(slot_path, name), file);
}

Error read_slot(const ManagedFolder& managed, const std::string& slot, Look look, SlotState* state) {
  // A slot that is grown, or released and emptied, while it is read looks torn, or somebody else's: what was read then
  // is of no use.
  bool unchanged = false;
  Error error;
  do {
    error = read_once(managed, slot, look, state, &unchanged);
  } while (error.ok() && !unchanged);
  return error;
}

Error flush_slot(const ManagedFolder& managed, const std::string& slot) {
  const std::string path = managed.slot_path(slot);
  Fd folder;
  Error error = open_folder_at(managed.clones_fd(), slot.c_str(), path, &folder);
  // The stamp last: it is what makes a slot of these files, and a cut in between must not leave one that lacks its raw
  // id, and so is another VM's, or its size.
  for (const char* name : {kRawId, kStack, kSizeStamp, kImage, kStamp}) {
    if (!error.ok()) return error;
    Fd file;
    error = open_file_at(folder.get(), name, join(path, name), &file);
    if (error.ok()) {
      error = flush(file.get(), join(path, name));
    } else if (error.is(ENOENT)) {
      error = Error();
    }
  }
  if (error.ok()) error = flush(folder.get(), path);
  if (error.ok()) error = flush(managed.clones_fd(), managed.clones_path());
  return error;
}

}  // namespace microvm
