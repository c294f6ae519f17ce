#include "slot/take_out.h"

#include <string_view>

#include "slot/name_lock.h"
#include "slot/remove_in_place.h"
#include "system/errno_policy.h"
#include "system/rename.h"
#include "system/tree.h"

namespace microvm {
namespace {

constexpr size_t kNameLimit = 255;

struct Record {
  std::string slot;
  uint64_t inode = 0;
};

// A name that is too long for a record has only the lock to protect it.
std::string record_of(ManagedFolder& managed, const std::string& slot, const Identity& expected) {
  const std::string record = slot + '.' + hexadecimal(expected.inode);
  return record.size() <= kNameLimit ? record : managed.next_name();
}

bool parse_record(std::string_view name, Record* record) {
  const size_t dot = name.rfind('.');  // a snapshot's name can hold more of them
  if (dot == std::string_view::npos || dot == 0) return false;
  record->slot = name.substr(0, dot);
  record->inode = 0;
  for (const char c : name.substr(dot + 1)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) return false;
    record->inode = record->inode * 16 + static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return dot + 1 < name.size();
}

Error put_back_one(const ManagedFolder& managed, int session_fd, const char* name, const std::string& path) {
  Record record;
  if (!parse_record(name, &record)) return {};
  FileInfo info;
  Error error = stat_at(session_fd, name, Follow::kNo, path, &info);
  if (error.is(ENOENT)) return {};
  if (!error.ok() || info.identity.inode == record.inode) return error;
  error = rename_folder_to_free({session_fd, name, path},
                                {managed.root_fd(), record.slot.c_str(), managed.slot_path(record.slot)});
  return error.is(EEXIST) || error.is(ENOENT) ? Error() : error;
}

Error take_out(ManagedFolder& managed, Place place, const std::string& name, const std::string& taken) {
  return rename_folder_to_free({managed.place_fd(place), name.c_str(), join(managed.place_path(place), name)},
                               {managed.session_fd(), taken.c_str(), join(managed.session_path(), taken)});
}

// Into trash, or back where it was.
Error trash_taken(ManagedFolder& managed, const std::string& taken, Place place, const std::string& name) {
  Error error = managed.to_trash(taken);
  // What cannot be put back now is put back when this session's folder is swept.
  if (!error.ok()) (void)managed.put_back(taken, place, name.c_str()).ok();
  return error;
}

// Programs that know nothing of the lock can still exchange the slot.
Error trash_if_meant(ManagedFolder& managed, const std::string& slot, const std::string& taken,
                     const Identity& expected, bool* trashed) {
  FileInfo got;
  Error error = stat_at(managed.session_fd(), taken.c_str(), Follow::kNo, join(managed.session_path(), taken), &got);
  if (error.ok() && got.identity.same_file(expected)) {
    error = trash_taken(managed, taken, Place::kTop, slot);
    *trashed = error.ok();
    return error;
  }
  Error back = managed.put_back(taken, Place::kTop, slot.c_str());
  // Its VM has a newer slot by now, so this one was released as well.
  if (back.is(EEXIST)) back = managed.to_trash(taken);
  return error.ok() ? back : error;
}

Error rename_to_trash(ManagedFolder& managed, const std::string& slot, const Identity& expected, bool* trashed) {
  if (!managed.has_session()) return Error::of(ENOSPC, "renameat2", managed.slot_path(slot));
  const std::string taken = record_of(managed, slot, expected);
  Error error = take_out(managed, Place::kTop, slot, taken);
  // The slot is gone, unless it is our own folder that was removed.
  if (error.is(ENOENT) && !managed.is_session_there()) return error;
  // The second: another process took the slot out by mistake, and is about to put it back.
  if (error.is(ENOENT) || error.is(EEXIST)) return {};
  return error.ok() ? trash_if_meant(managed, slot, taken, expected, trashed) : error;
}

}  // namespace

Error trash_slot(ManagedFolder& managed, const std::string& slot, const Identity& expected, const MayGo& ask,
                 bool* trashed) {
  *trashed = false;
  NameLock lock;
  bool free = false;
  Error error = lock.take(managed, slot, NameLock::For::kRelease, &free);
  if (!error.ok() || !free) return error;
  const std::string path = managed.slot_path(slot);
  FileInfo now;
  error = stat_at(managed.root_fd(), slot.c_str(), Follow::kNo, path, &now);
  if (error.is(ENOENT)) return {};
  if (!error.ok() || !now.identity.same_file(expected)) return error;
  bool may_go = false;
  error = ask(&may_go);
  if (!error.ok() || !may_go) return error;
  error = rename_to_trash(managed, slot, expected, trashed);
  if (!keeps_from_renaming(error.code)) return error;
  return remove_in_place(managed.root_fd(), slot.c_str(), path, &expected, trashed);
}

Error discard_folder(ManagedFolder& managed, Place place, const std::string& name) {
  const std::string taken = managed.next_name();
  Error error = Error::of(ENOSPC, "renameat2", managed.place_path(place));
  if (managed.has_session()) error = take_out(managed, place, name, taken);
  if (error.is(ENOENT)) return {};
  if (error.ok()) error = trash_taken(managed, taken, place, name);
  if (!keeps_from_renaming(error.code)) return error;
  bool removed = false;
  return remove_in_place(managed.place_fd(place), name.c_str(), join(managed.place_path(place), name), nullptr,
                         &removed);
}

Error put_back_strays(const ManagedFolder& managed, int session_fd, const std::string& session_path) {
  Error first_error;
  FolderReader reader(session_fd, session_path);
  while (const char* name = reader.next()) {
    Error error = put_back_one(managed, session_fd, name, join(session_path, name));
    if (!error.ok() && first_error.ok()) first_error = error;
  }
  return first_error.ok() ? reader.error() : first_error;
}

}  // namespace microvm
