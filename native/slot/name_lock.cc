#include "slot/name_lock.h"

#include <fcntl.h>
#include <time.h>

#include "system/errno_policy.h"
#include "system/file.h"

namespace microvm {
namespace {

constexpr char kReleaseFile[] = "release.lock";
constexpr char kReplaceFile[] = "replace.lock";
constexpr int kTries = 8;
constexpr long kFirstPauseNs = 50'000;  // doubled each time: 6 ms in all

// FNV-1a. Two names with one hash merely wait for each other.
off_t byte_of(const std::string& slot) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : slot) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return static_cast<off_t>(hash >> 2);
}

}  // namespace

Error NameLock::take(const ManagedFolder& managed, const std::string& name, For purpose, bool* free) {
  const char* lock_file = purpose == For::kRelease ? kReleaseFile : kReplaceFile;
  const int tries = purpose == For::kRelease ? kTries : 1;
  *free = true;
  if (managed.state_fd() < 0) return {};  // a disk on which nothing can be made
  // A lock belongs to the open file, so each holder opens its own, and the kernel drops the lock with the process.
  Error error = open_lock_file_at(managed.state_fd(), lock_file, join(managed.state_path(), lock_file), &file_);
  if (is_full(error.code) || error.is(EROFS)) return {};
  if (!error.ok()) return error;
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte_of(name);
  lock.l_len = 1;
  struct timespec pause = {0, kFirstPauseNs};
  for (int i = 0; i < tries; i++, pause.tv_nsec *= 2) {
    if (i > 0) nanosleep(&pause, nullptr);
    const int result = retry_eintr([&] { return fcntl(file_.get(), F_OFD_SETLK, &lock); });
    if (result == 0 || (errno != EAGAIN && errno != EACCES)) return {};
  }
  *free = false;
  return {};
}

}  // namespace microvm
