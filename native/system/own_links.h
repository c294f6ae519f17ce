// The ctime of files that this process links. Each name that a file gets or loses changes its ctime, as a write does
// whose mtime was put back. So this process keeps account of the names that it gives and takes itself: stat_fd and
// stat_at report such a file with the ctime from before them. Any other ctime is somebody else's doing.
#pragma once

#include <atomic>
#include <functional>

#include "system/identity.h"

namespace microvm {

struct LinkAccount {
  std::atomic<bool> opened{false};
  // Held to look at the file, to give it a name or to take one away.
  std::atomic<bool> locked{false};
  bool valid = false;   // whether only our links have changed the file
  Identity now;         // as our last link left it
  TimeNs ctime_ns = 0;  // reported in place of its ctime
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

// Calls `change`, which gives the open file a name or takes one away. Returns 0 or its errno.
int change_links(int fd, const std::function<int()>& change);

// unlinkat() of a name that may be one of those. Returns 0 or its errno.
int unlink_name(int folder_fd, const char* name);

}  // namespace microvm
