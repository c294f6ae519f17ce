#include "system/own_links.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "system/fd.h"
#include "system/filesystem.h"

namespace microvm {
namespace {

// By inode. Of two files in one place, the one that was not linked last is hashed again.
constexpr size_t kAccounts = 1024;
LinkAccount accounts[kAccounts];

// Most processes link nothing, and look at files all the time.
std::atomic<bool> any_opened{false};

std::atomic<uint64_t> changes{0};

constexpr long kLockPollNs = 50'000;

LinkAccount* account_of(const Identity& file) { return &accounts[(file.inode ^ file.device) % kAccounts]; }

// Whether nothing but one name came or went. (A write within the same tick as the last link, whose mtime is put back,
// has the same ctime: where times have whole seconds, within that second.)
bool is_one_link(const Identity& before, const Identity& after) {
  return after.same_file(before) && after.size == before.size && after.mtime_ns == before.mtime_ns &&
         (after.links == before.links + 1 || after.links + 1 == before.links);
}

int code_of(int result) { return result < 0 ? errno : 0; }

}  // namespace

LinkLock::LinkLock(LinkAccount* account) : account_(account) {
  const struct timespec rest = {0, kLockPollNs};
  while (account_->locked.exchange(true, std::memory_order_acquire)) nanosleep(&rest, nullptr);
}

LinkAccount* find_link_account(const Identity& file) {
  if (!any_opened) return nullptr;
  LinkAccount* account = account_of(file);
  return account->opened ? account : nullptr;
}

int change_links(int fd, int place_fd, const std::function<int()>& change) {
  FileInfo before;
  FileInfo after;
  if (!stat_real_ctime(fd, &before).ok()) return code_of(change());
  LinkAccount* account = account_of(before.identity);
  const LinkLock lock(account);
  any_opened = true;
  account->opened = true;
  const bool looked = stat_real_ctime(fd, &before).ok();
  // Not so if somebody else has changed it since, or if this is the first link.
  const bool goes_on = account->valid && before.identity.identical(account->now);
  const TimeNs reported = goes_on ? account->ctime_ns : before.identity.ctime_ns;
  const int code = code_of(change());
  // Also where it failed: whoever asked meanwhile has passed this account over.
  account->change = ++changes;
  if (code != 0) return code;
  if (!account->valid || !before.identity.same_file(account->now)) {
    const std::string filesystem = filesystem_id(place_fd);
    const bool fits = filesystem.size() < sizeof account->filesystem;
    account->filesystem[fits ? filesystem.copy(account->filesystem, filesystem.size()) : 0] = '\0';
  }
  account->valid = looked && stat_real_ctime(fd, &after).ok() && is_one_link(before.identity, after.identity);
  account->now = after.identity;
  account->ctime_ns = reported;
  return 0;
}

int unlink_name(int folder_fd, const char* name) {
  const auto unlink = [&] { return retry_eintr([&] { return unlinkat(folder_fd, name, 0); }); };
  // Most files have one name.
  FileInfo info;
  const bool may_be_shared =
      stat_at(folder_fd, name, Follow::kNo, {}, &info).ok() && info.is_regular() && info.identity.links > 1;
  if (!may_be_shared) return code_of(unlink());
  const Fd file(openat(folder_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  const bool is_shared =
      file && stat_real_ctime(file.get(), &info).ok() && info.is_regular() && info.identity.links > 1;
  return is_shared ? change_links(file.get(), folder_fd, unlink) : code_of(unlink());
}

std::vector<LinkedFile> files_linked_since(uint64_t* seen) {
  std::vector<LinkedFile> files;
  uint64_t now = changes;
  if (now == *seen) return files;
  for (LinkAccount& account : accounts) {
    const uint64_t change = account.change;
    if (change <= *seen) continue;
    if (account.locked.exchange(true, std::memory_order_acquire)) {
      now = std::min(now, change - 1);
      continue;
    }
    if (account.valid) {
      Identity identity = account.now;
      identity.ctime_ns = account.ctime_ns;
      files.push_back({identity, account.filesystem});
    }
    account.locked.store(false, std::memory_order_release);
  }
  *seen = now;
  return files;
}

}  // namespace microvm
