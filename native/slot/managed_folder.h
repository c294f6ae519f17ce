// A managed folder as one process sees it: the clones folder, the catalog or the folder of snapshots. It has
// descriptors of that folder and of our own folder in it, and a staging folder of this process alone.
//
// Who may delete a folder:
// - Trash: any process. What lies there belongs to nobody.
// - A session's staging folder: whoever can take its flock. Its process holds that from just after it made the folder
//   until it ends; if the folder was swept before, it notices and makes another one. The sweeper first puts back what
//   the session took out by mistake (put_back_strays).
// - A slot: whoever holds the lock on its name (name_lock.h) and sees that its folder is still the one that was judged.
//   release.h says which slot may be released. The slot is taken out by one rename, compared once more, and moved into
//   trash by another (take_out.h).
// - A snapshot: in the same way, whoever has the folder open that was judged.
// - A sealed image or a ready slot: any process, in the same two renames, without a lock: only this library uses them.
// - Where no rename is possible, the folder is removed where it lies, under the same rules (remove_in_place.h).
// - `spare`: nobody. A session that has no space for a staging folder of its own borrows it, and empties it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"
#include "system/ref.h"

namespace microvm {

inline constexpr char kStateFolder[] = ".microvm-rootfs";

// Whether files of a folder can share blocks.
enum class Reflinks {
  kUnknown,  // no space to try it, or ZFS had not written what was to be shared
  kNo,
  kYes,
};

// Where something staged can be published to.
enum class Place {
  kTop,     // the managed folder itself, where slots and snapshots are
  kSealed,  // images that clones are reflinked from
  kPool,    // slots that are ready to be taken
};

struct SweepReport {
  uint64_t staging_removed = 0;  // folders of dead sessions
  uint64_t trash_removed = 0;    // released slots
  bool more = false;             // the budget ran out first
  bool still_open = false;       // on FUSE or NFS something was still open: it goes with another sweep
};

class ManagedFolder final : public Shared {
 public:
  // The folder must exist; our own folder in it is made, if there is space for it.
  static Error open(const std::string& root_path, Ref<ManagedFolder>* managed);

  // ESTALE if the path now names another folder than the one that is open (moved away, or mounted over), or if our own
  // folders in it were removed.
  Error check_current() const;

  // Tried, not guessed from the file system's name. A fault of the disk is an error, not a no.
  Error probe_reflink(Reflinks* reflinks);

  // Removes what dead processes left in staging, and all trash; about `budget` files and folders. The report is of use
  // after an error too, which is the first: what cannot be removed keeps nothing else from being removed.
  Error sweep(uint64_t budget, SweepReport* report);

  // What lies in this session's folder goes to a place, or into trash, which anybody may empty. See take_out.h.
  Error put_back(const std::string& taken, Place place, const char* name);
  Error to_trash(const std::string& taken);

  // Removes this session's staging folder, unless it serves as the spare one. The object is of no use afterwards.
  Error leave();

  // Whether names that differ only in case are known to be different here.
  bool is_case_sensitive() const { return case_sensitive_.load(std::memory_order_relaxed); }
  void set_case_sensitive() const { case_sensitive_.store(true, std::memory_order_relaxed); }

  // Whether the last slot that was made here was a reflink to a free name. A guess about the next one.
  bool expects_free_reflink() const { return expects_free_reflink_.load(std::memory_order_relaxed); }
  void expect_free_reflink(bool expect) const { expects_free_reflink_.store(expect, std::memory_order_relaxed); }

  // False on a disk that is read-only, or too full for a session of our own: then slots can be looked at and released,
  // no more. Our own folders may be missing then.
  bool has_session() const { return static_cast<bool>(session_); }
  // False if somebody removed its folder, while it is open.
  bool is_session_there() const;

  // A name that no other object of this session has.
  std::string next_name();

  int place_fd(Place place) const;
  const std::string& place_path(Place place) const;
  int root_fd() const { return root_.get(); }
  int session_fd() const { return session_.get(); }
  int state_fd() const { return state_.get(); }
  const std::string& state_path() const { return state_path_; }
  const std::string& root_path() const { return root_path_; }
  const std::string& session_path() const { return session_path_; }
  std::string slot_path(std::string_view slot) const { return join(root_path_, slot); }

 private:
  explicit ManagedFolder(const std::string& root_path);

  // Opens those that are there, whatever keeps others from being made.
  Error make_folders();
  bool has_folders() const;
  bool have_appeared() const;
  Error start_session();
  Error make_folders_and_session();
  Error make_session();
  Error borrow_spare(Error no_space);
  void drop_session();
  Error lock_spare();
  // Removes what a process that died has left there.
  Error empty_spare();
  Error sweep_folder(int folder_fd, const std::string& path, const char* name, uint64_t* budget, uint64_t* removed,
                     bool* still_open);
  Error sweep_staging(uint64_t* budget, SweepReport* report);
  Error empty_trash(uint64_t* budget, SweepReport* report);

  const std::string root_path_;
  const std::string state_path_;
  const std::string staging_path_;
  const std::string trash_path_;
  const std::string sealed_path_;
  const std::string pool_path_;
  const std::string spare_path_;
  std::string session_name_;
  std::string session_path_;
  Fd root_;
  Fd state_;
  Fd staging_;
  Fd trash_;
  Fd sealed_;
  Fd pool_;
  Fd session_;
  // A folder for one session at a time that was made while there was space, so that slots can be released when there is
  // none.
  Fd spare_;
  Identity root_identity_;
  mutable std::atomic<bool> case_sensitive_{false};
  mutable std::atomic<bool> expects_free_reflink_{false};
  std::atomic<uint64_t> counter_{0};
};

}  // namespace microvm
