// The ctime of files that this process links. Each name that a file gets or loses changes its ctime, as a write does
// whose mtime was put back. So the names that this process gives and takes itself are kept account of: such a file is
// told of with the ctime from before them, and any other ctime is somebody else's doing.
#pragma once

#include <atomic>
#include <functional>

#include "system/identity.h"

namespace microvm {

// Whoever looks at the file, gives it a name or takes one away has the turn.
struct LinkAccount {
  std::atomic<bool> opened{false};
  std::atomic<bool> turn{false};
  bool holds = false;
  Identity now;         // as our last link left it
  TimeNs ctime_ns = 0;  // what is told in place of its ctime
};

// The libcs do not agree on how a mutex looks. A turn is as long as a link takes.
class LinkTurn {
 public:
  explicit LinkTurn(LinkAccount* account);
  ~LinkTurn() { account_->turn.store(false, std::memory_order_release); }
  LinkTurn(const LinkTurn&) = delete;
  LinkTurn& operator=(const LinkTurn&) = delete;

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
