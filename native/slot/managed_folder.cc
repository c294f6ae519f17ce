#include "slot/managed_folder.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "slot/take_out.h"
#include "system/errno_policy.h"
#include "system/file.h"
#include "system/guarded_folder.h"
#include "system/lock.h"
#include "system/reflink.h"
#include "system/rename.h"
#include "system/tree.h"

namespace microvm {
namespace {

constexpr const char* kStaging = "staging";
constexpr const char* kTrash = "trash";
constexpr const char* kSealed = "sealed";
constexpr const char* kPool = "pool";
constexpr const char* kSpare = "spare";
constexpr int kRounds = 100;

// Whether nothing has this name any more. After a removal, a budget of 0 does not tell: it may have run out with the
// last file.
bool is_gone(int folder_fd, const char* name) {
  FileInfo info;
  return stat_at(folder_fd, name, Follow::kNo, name, &info).is(ENOENT);
}

// Whether the open folder still has this name.
bool has_name(int fd, int folder_fd, const char* name) {
  FileInfo info;
  return stat_fd(fd, name, &info).ok() && is_named(folder_fd, name, info.identity);
}

}  // namespace

ManagedFolder::ManagedFolder(const std::string& root_path)
    : root_path_(root_path),
      state_path_(join(root_path, kStateFolder)),
      staging_path_(join(state_path_, kStaging)),
      trash_path_(join(state_path_, kTrash)),
      sealed_path_(join(state_path_, kSealed)),
      pool_path_(join(state_path_, kPool)),
      spare_path_(join(state_path_, kSpare)) {}

Error ManagedFolder::open(const std::string& root_path, Ref<ManagedFolder>* out) {
  Ref<ManagedFolder> managed(new ManagedFolder(root_path));
  Error error = open_folder(root_path, &managed->root_);
  if (!error.ok()) return error;
  FileInfo info;
  error = stat_fd(managed->root_.get(), root_path, &info);
  if (!error.ok()) return error;
  managed->root_identity_ = info.identity;

  error = managed->start_session();
  if (error.ok()) *out = managed;
  return error;
}

Error ManagedFolder::make_folders() {
  Error first;
  const auto make = [&first](const Fd& parent, const char* name, const std::string& path, Fd* folder) {
    if (*folder) return;
    Error error = make_folder_at(parent.get(), name, 0700, path, folder);
    if (first.ok()) first = error;
  };
  make(root_, kStateFolder, state_path_, &state_);
  if (!state_) return first;
  // If one cannot be made, the others are opened all the same.
  make(state_, kStaging, staging_path_, &staging_);
  make(state_, kTrash, trash_path_, &trash_);
  make(state_, kSealed, sealed_path_, &sealed_);
  make(state_, kPool, pool_path_, &pool_);
  return first;
}

Error ManagedFolder::start_session() {
  Error error = make_folders_and_session();
  if (is_full(error.code)) {
    // Removing what dead sessions left may free enough space.
    SweepReport report;
    (void)sweep(UINT64_MAX, &report).ok();  // what cannot be removed says nothing of what was
    error = make_folders_and_session();
    if (is_full(error.code)) error = borrow_spare(error);
  }
  // On such a disk slots can still be looked at, and on a full one released. Only what needs a session fails.
  if (!is_full(error.code) && !error.is(EROFS)) return error;
  drop_session();
  return {};
}

Error ManagedFolder::make_folders_and_session() {
  Error error = make_folders();
  return error.ok() ? make_session() : error;
}

void ManagedFolder::drop_session() {
  session_.reset();
  spare_.reset();
  session_name_.clear();
  session_path_.clear();
}

Error ManagedFolder::borrow_spare(Error no_space) {
  // A session has all folders.
  if (!has_folders()) return no_space;
  Error error = lock_spare();
  if (error.ok()) error = empty_spare();
  if (!error.ok()) return no_space;
  session_ = std::move(spare_);
  session_path_ = spare_path_;
  return {};
}

Error ManagedFolder::lock_spare() {
  Error error = open_folder_at(state_.get(), kSpare, spare_path_, &spare_);
  if (error.ok()) error = try_lock(spare_.get(), spare_path_);
  if (error.ok() && !has_name(spare_.get(), state_.get(), kSpare)) {
    error = Error::of(ENOENT, "openat", spare_path_);
  }
  return error;
}

Error ManagedFolder::empty_spare() {
  Error error = put_back_strays(*this, spare_.get(), spare_path_);
  if (!error.ok()) return error;
  FolderReader reader(spare_.get(), spare_path_);
  while (const char* name = reader.next()) {
    const std::string unique = session_name_ + '-' + next_name();
    error = rename_over({spare_.get(), name, join(spare_path_, name)},
                        {trash_.get(), unique.c_str(), join(trash_path_, unique)});
    if (!error.ok()) return error;
  }
  return reader.error();
}

bool ManagedFolder::is_session_there() const {
  const bool is_spare = session_path_ == spare_path_;
  return is_spare ? has_name(session_.get(), state_.get(), kSpare)
                  : has_name(session_.get(), staging_.get(), session_name_.c_str());
}

Error ManagedFolder::make_session() {
  for (int round = 1;; round++) {
    uint64_t random = 0;
    if (retry_eintr([&] { return syscall(SYS_getrandom, &random, sizeof random, 0); }) < 0) {
      return Error::last("getrandom", staging_path_);
    }
    session_name_ = hexadecimal(static_cast<uint64_t>(getpid())) + '-' + hexadecimal(random);
    session_path_ = join(staging_path_, session_name_);
    Error error = make_folder_at(staging_.get(), session_name_.c_str(), 0700, session_path_, &session_);
    if (error.ok()) error = lock(session_.get(), session_path_);
    FileInfo ours;
    FileInfo there;
    if (error.ok()) error = stat_fd(session_.get(), session_path_, &ours);
    if (error.ok()) error = stat_at(staging_.get(), session_name_.c_str(), Follow::kNo, session_path_, &there);
    if (error.ok() && there.identity.same_file(ours.identity)) return {};
    // Swept before it was locked; or staging itself was removed.
    if (error.ok() || (error.is(ENOENT) && round < kRounds)) continue;
    // Whatever makes each open fail keeps sweeps from running as well.
    unlinkat(staging_.get(), session_name_.c_str(), AT_REMOVEDIR);
    return error;
  }
}

Error ManagedFolder::check_current() const {
  FileInfo there;
  Error error = stat_at(AT_FDCWD, root_path_.c_str(), Follow::kYes, root_path_, &there);
  if (error.is(ENOENT) || (error.ok() && !there.identity.same_file(root_identity_))) {
    return Error::of(ESTALE, "statx", root_path_);
  }
  // Opened on a full or read-only disk, where another process has made our folders since.
  if (error.ok() && !has_folders() && have_appeared()) return Error::of(ESTALE, "statx", state_path_);
  return error;
}

bool ManagedFolder::has_folders() const { return staging_ && trash_ && sealed_ && pool_; }

bool ManagedFolder::have_appeared() const {
  for (const std::string* path : {&staging_path_, &trash_path_, &sealed_path_, &pool_path_}) {
    FileInfo info;
    if (!stat_at(AT_FDCWD, path->c_str(), Follow::kNo, *path, &info).ok()) return false;
  }
  return true;
}

Error ManagedFolder::probe_reflink(Reflinks* reflinks) {
  *reflinks = Reflinks::kUnknown;
  if (!has_session()) return {};
  const std::string from_name = next_name();
  const std::string to_name = next_name();
  const std::string from_path = join(session_path_, from_name);
  const std::string to_path = join(session_path_, to_name);
  const std::string block(4096, 'x');
  Fd from;
  Fd to;
  Error error = create_file_at(session_.get(), from_name.c_str(), 0600, from_path, &from);
  if (error.ok()) error = write_all_at(from.get(), block.data(), block.size(), 0, from_path);
  if (error.ok()) error = create_file_at(session_.get(), to_name.c_str(), 0600, to_path, &to);
  if (error.ok()) {
    error = reflink(from.get(), to.get(), block.size(), from_path, to_path);
    if (error.ok()) {
      *reflinks = Reflinks::kYes;
    } else if (error.is(EAGAIN)) {
      error = Error();  // ZFS, which had not written the block yet: no proof that there are none
    } else if (verdict_of(error.code) == Verdict::kNextRung) {
      *reflinks = Reflinks::kNo;
      error = Error();
    }
  }
  from.reset();  // FUSE keeps a file that is removed while it is open under another name
  to.reset();
  for (const std::string& name : {from_name, to_name}) {
    if (unlinkat(session_.get(), name.c_str(), 0) < 0) (void)to_trash(name).ok();
  }
  // Slots must be released without space, too. Sealing tries again.
  return is_full(error.code) ? Error() : error;
}

Error ManagedFolder::sweep(uint64_t budget, SweepReport* report) {
  // A fault in one place must not stop the sweep of the other.
  Error staging_error = sweep_staging(&budget, report);
  Error trash_error = empty_trash(&budget, report);
  report->more = budget == 0;
  return staging_error.ok() ? trash_error : staging_error;
}

Error ManagedFolder::sweep_folder(int folder_fd, const std::string& path, const char* name, uint64_t* budget,
                                  uint64_t* removed, bool* still_open) {
  const uint64_t before = *budget;
  Error error = remove_tree(folder_fd, name, join(path, name), budget);
  if (error.is(ENOTEMPTY)) {
    // FUSE and NFS give a removed file that is still open another name; a later sweep removes that. Nothing was freed,
    // so the budget is restored. Otherwise sweeps would go on for ever.
    *budget = before;
    *still_open = true;
    return {};
  }
  if (error.ok() && is_gone(folder_fd, name)) ++*removed;
  return error;
}

Error ManagedFolder::sweep_staging(uint64_t* budget, SweepReport* report) {
  if (!staging_) return {};
  Error first_error;
  FolderReader reader(staging_.get(), staging_path_);
  while (const char* name = reader.next()) {
    if (*budget == 0) return first_error;
    if (session_name_ == name) continue;
    Fd session;
    Error error = open_folder_at(staging_.get(), name, join(staging_path_, name), &session);
    // Only folders are sessions. A session may also be gone already.
    if (error.is(ENOENT) || is_no_folder(error.code)) continue;
    if (error.ok()) {
      if (!try_lock(session.get(), staging_path_).ok()) continue;  // alive
      if (is_gone(staging_.get(), name)) continue;                 // another sweep had the lock before, and removed it
      error = put_back_strays(*this, session.get(), join(staging_path_, name));
    }
    if (error.ok()) {
      error = sweep_folder(staging_.get(), staging_path_, name, budget, &report->staging_removed, &report->still_open);
    }
    if (!error.ok() && first_error.ok()) first_error = error;
  }
  return first_error.ok() ? reader.error() : first_error;
}

Error ManagedFolder::empty_trash(uint64_t* budget, SweepReport* report) {
  if (!trash_) return {};
  Error first_error;
  FolderReader reader(trash_.get(), trash_path_);
  while (const char* name = reader.next()) {
    if (*budget == 0) return first_error;
    // One slot that cannot be removed (an immutable file, a mount) must not stop the sweep of the others.
    Error error = sweep_folder(trash_.get(), trash_path_, name, budget, &report->trash_removed, &report->still_open);
    if (!error.ok() && first_error.ok()) first_error = error;
  }
  return first_error.ok() ? reader.error() : first_error;
}

int ManagedFolder::place_fd(Place place) const {
  return place == Place::kTop ? root_.get() : place == Place::kSealed ? sealed_.get() : pool_.get();
}

const std::string& ManagedFolder::place_path(Place place) const {
  return place == Place::kTop ? root_path_ : place == Place::kSealed ? sealed_path_ : pool_path_;
}

Error ManagedFolder::put_back(const std::string& taken, Place place, const char* name) {
  return rename_folder_to_free({session_.get(), taken.c_str(), join(session_path_, taken)},
                               {place_fd(place), name, join(place_path(place), name)});
}

Error ManagedFolder::to_trash(const std::string& taken) {
  const std::string name = session_name_ + '-' + next_name();
  return rename_folder_to_free({session_.get(), taken.c_str(), join(session_path_, taken)},
                               {trash_.get(), name.c_str(), join(trash_path_, name)});
}

Error ManagedFolder::leave() {
  if (!has_session()) return {};
  Error error = put_back_strays(*this, session_.get(), session_path_);
  if (!error.ok() || session_path_ == spare_path_) return error;
  // The first session to end leaves its folder as the spare one, for a session that starts without space for its own.
  // One that is there stays: another process may be working in it.
  FolderReader reader(session_.get(), session_path_);
  if (reader.next() == nullptr && is_gone(state_.get(), kSpare) &&
      rename_folder_to_free({staging_.get(), session_name_.c_str(), session_path_}, {state_.get(), kSpare, spare_path_})
          .ok()) {
    return {};
  }
  uint64_t budget = UINT64_MAX;
  return remove_tree(staging_.get(), session_name_.c_str(), session_path_, &budget);
}

std::string ManagedFolder::next_name() { return hexadecimal(counter_.fetch_add(1, std::memory_order_relaxed)); }

}  // namespace microvm
