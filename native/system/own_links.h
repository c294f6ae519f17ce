// The ctime of files that this process links. Each name that a file gets or loses changes its ctime, as a write does
// whose mtime was put back. So this process keeps account of the names that it gives and takes itself: stat_fd and
// stat_at report such a file with the ctime from before them. Any other ctime is somebody else's doing. Other processes
// learn of it by the file's digest record, which is saved again with the present ctime: src/catalog/digest-store.ts.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "system/identity.h"

namespace microvm {

struct LinkAccount {
  std::atomic<bool> opened{false};
  // Held to look at the file, to give it a name or to take one away.
  std::atomic<bool> locked{false};
  bool valid = false;   // whether only our links have changed the file
  Identity now;         // as our last link left it
  TimeNs ctime_ns = 0;  // reported in place of its ctime
  char filesystem[64];  // its filesystem_id(), empty if that is longer
  // Which of this process's changes of links was the last one of this file.
  std::atomic<uint64_t> change{0};
};

// Not a mutex: glibc and musl lay it out differently, and one binary serves both. Held for as long as a link takes.
class LinkLock {
 public:
  explicit LinkLock(LinkAccount* account);
  ~LinkLock() { account_->locked.store(false, std::memory_order_release); }
  LinkLock(const LinkLock&) = delete;
  LinkLock& operator=(const LinkLock&) = delete;

 private:
  LinkAccount* const account_;
};

// nullptr if this process has linked no such file.
LinkAccount* find_link_account(const Identity& file);

// Calls `change`, which gives the open file a name or takes one away. Returns 0 or its errno. `place_fd` is open, not
// as O_PATH, on the file's file system.
int change_links(int fd, int place_fd, const std::function<int()>& change);

// unlinkat() of a name that may be one of several. Returns 0 or its errno.
int unlink_name(int folder_fd, const char* name);

struct LinkedFile {
  Identity identity;  // as stat_fd reports it
  std::string filesystem;
};

// The files whose links this process has changed since the change number *seen, which is advanced. Of what is being
// changed now it tells the next time.
std::vector<LinkedFile> files_linked_since(uint64_t* seen);

}  // namespace microvm
