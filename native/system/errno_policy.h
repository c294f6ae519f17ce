// What each errno means for the way down the ladder: reflink, hardlink, copy; and inside a copy, from
// copy_file_range to read and write. This table is the whole policy. What users are told about an errno is in
// src/system/errno-advice.ts.
#pragma once

#include <cerrno>

namespace microvm {

enum class Verdict {
  kNextRung,  // this way cannot work here, another may
  kStop,      // the disk or the destination is at fault: every other way would fail as well, or do harm
};

struct ErrnoPolicy {
  int code;
  Verdict verdict;
};

inline constexpr ErrnoPolicy kErrnoPolicy[] = {
    // The file system or the kernel does not do it.
    {EOPNOTSUPP, Verdict::kNextRung},
    {ENOTTY, Verdict::kNextRung},
    {ENOSYS, Verdict::kNextRung},
    {EINVAL, Verdict::kNextRung},
    // Not between these two files: other file system, too many links, immutable or append-only template,
    // protected_hardlinks, a user namespace, a swap file.
    {EXDEV, Verdict::kNextRung},
    {EMLINK, Verdict::kNextRung},
    {EPERM, Verdict::kNextRung},
    {EACCES, Verdict::kNextRung},
    {ETXTBSY, Verdict::kNextRung},
    // Not yet: ZFS has not written the blocks (see reflink.cc).
    {EAGAIN, Verdict::kNextRung},
    // Faults of the disk, the destination or the process.
    {EIO, Verdict::kStop},
    {ENOSPC, Verdict::kStop},
    {EDQUOT, Verdict::kStop},
    {ENOMEM, Verdict::kStop},
    {EROFS, Verdict::kStop},
    {EMFILE, Verdict::kStop},
    {ENFILE, Verdict::kStop},
    {EFBIG, Verdict::kStop},
};

// An errno that is not in the table does not prove that the next way fails. That way reports its own.
inline constexpr Verdict verdict_of(int code) {
  for (const ErrnoPolicy& row : kErrnoPolicy) {
    if (row.code == code) return row.verdict;
  }
  return Verdict::kNextRung;
}

// There is no such call here, or a sandbox (seccomp) forbids it.
inline constexpr bool is_refused(int code) { return code == ENOSYS || code == EPERM; }

// No space is left, on the disk or in a quota. Half-way through a slot this ends the call (kStop): what was begun is
// removed (StagedSlot::discard), and no other rung is tried.
inline constexpr bool is_full(int code) { return code == ENOSPC || code == EDQUOT; }

// What is there can't be renamed, and can be removed all the same: see slot/remove_in_place.h.
inline constexpr bool keeps_from_renaming(int code) { return is_full(code) || code == EXDEV; }

// The name is not that of a folder; a symbolic link is not followed.
inline constexpr bool is_no_folder(int code) { return code == ENOTDIR || code == ELOOP; }

// The file system has no extended attributes, or the file has none.
inline constexpr bool lacks_attributes(int code) { return code == EOPNOTSUPP || code == ENOSYS || code == ENODATA; }

// A listed attribute has no value for this process: NFS and security modules list what they keep to themselves, and
// Linux reads no capabilities that are damaged (EINVAL) or of users that the user namespace lacks (EOVERFLOW).
inline constexpr bool keeps_attribute(int code) {
  return code == EOPNOTSUPP || code == EPERM || code == EACCES || code == EINVAL || code == EOVERFLOW;
}

}  // namespace microvm
