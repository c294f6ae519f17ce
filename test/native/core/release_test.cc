// Releasing slots, and sweeping up behind them.
#include "slot/release.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "files.h"
#include "host.h"
#include "slot/name_lock.h"
#include "slot/take_out.h"
#include "system/file.h"
#include "system/lease.h"
#include "system/tree.h"

using namespace core_test;
using microvm::Fd;
using microvm::ManagedFolder;
using microvm::Reflinks;
using microvm::ReleaseRequest;
using microvm::ReleaseStatus;
using microvm::SweepReport;

namespace {

ReleaseStatus release(const Host& host, const ReleaseRequest& request) {
  ReleaseStatus status = ReleaseStatus::kAbsent;
  std::string raw_id;
  CHECK_OK(microvm::release_slot(*host.managed, request, &status, &raw_id));
  return status;
}

ReleaseStatus release(const Host& host, const std::string& slot, const std::string& raw_id = "") {
  ReleaseRequest request;
  request.slot = slot;
  request.raw_id = raw_id;
  return release(host, request);
}

TEST(releases, "a slot goes to trash, and from there with a sweep; twice is fine") {
  Host host;
  host.clone("vm");
  CHECK(release(host, "vm") == ReleaseStatus::kReleased);
  CHECK(release(host, "vm") == ReleaseStatus::kAbsent);
  CHECK(host.trash().size() == 1);
  SweepReport report;
  CHECK_OK(host.managed->sweep(1000, &report));
  CHECK(report.trash_removed == 1 && !report.more && host.trash().empty());
}

TEST(other_ids, "a slot of another raw id, of none that can be read, or that is none at all, stays") {
  Host host;
  host.clone("v_m");
  const std::string raw_id = host.slot("v_m") + '/' + microvm::kRawId;
  CHECK(release(host, "v_m", "v/m") == ReleaseStatus::kCollision);
  write_file(raw_id, "v.m");
  CHECK(release(host, "v_m") == ReleaseStatus::kCollision);
  write_file(raw_id, "");
  CHECK(release(host, "v_m", "v/m") == ReleaseStatus::kTorn);
  CHECK(mkdir(host.slot("other").c_str(), 0755) == 0);
  write_file(host.slot("other") + "/notes", "x");
  CHECK(release(host, "other") == ReleaseStatus::kNotASlot);
  write_file(raw_id, "v/m");
  CHECK(release(host, "v_m", "v/m") == ReleaseStatus::kReleased);
  CHECK(exists(host.slot("other") + "/notes"));
}

TEST(torn_slots, "a torn slot is released by its folder's identity alone") {
  Host host;
  host.clone("vm");
  ReleaseRequest request;
  request.slot = "vm";
  request.torn = true;
  CHECK(release(host, request) == ReleaseStatus::kAbsent);
  request.expected = host.state("vm").folder;
  CHECK(release(host, request) == ReleaseStatus::kReleased);
}

// What a process that releases a slot leaves if it is killed after its first rename.
std::string killed_releaser(const Host& host, const std::string& slot, uint64_t meant) {
  const std::string dead = host.clones() + "/.microvm-rootfs/staging/1-dead";
  CHECK(mkdir(dead.c_str(), 0700) == 0);
  const std::string taken = dead + '/' + slot + '.' + microvm::hexadecimal(meant);
  CHECK(rename(host.slot(slot).c_str(), taken.c_str()) == 0);
  return taken;
}

TEST(strays, "a slot that a killed process took out by mistake is put back, one that it was to take is not") {
  Host host;
  host.clone("mistaken");
  host.clone("meant");
  SweepReport report;
  killed_releaser(host, "mistaken", host.state("mistaken").folder.inode + 1);
  CHECK(host.state("mistaken").kind == microvm::SlotState::Kind::kAbsent);
  CHECK_OK(host.managed->sweep(1000, &report));
  CHECK(host.state("mistaken").kind == microvm::SlotState::Kind::kFolder && exists(host.image("mistaken")));
  // A snapshot's name.
  host.clone("mistaken.1");
  killed_releaser(host, "mistaken.1", host.state("mistaken.1").folder.inode + 1);
  CHECK_OK(host.managed->sweep(1000, &report));
  CHECK(exists(host.image("mistaken.1")));
  killed_releaser(host, "meant", host.state("meant").folder.inode);
  CHECK_OK(host.managed->sweep(1000, &report));
  CHECK(!exists(host.slot("meant")) && host.trash().empty());
  CHECK(report.staging_removed == 3);
}

TEST(newer_slots, "what was taken out by mistake does not take the place of a newer slot") {
  Host host;
  host.clone("vm");
  killed_releaser(host, "vm", host.state("vm").folder.inode + 1);
  host.clone("vm");
  const microvm::Identity newer = host.state("vm").folder;
  SweepReport report;
  CHECK_OK(host.managed->sweep(1000, &report));
  CHECK(host.state("vm").folder.same_file(newer) && report.staging_removed == 1);
}

const auto goes = [](bool* may_go) {
  *may_go = true;
  return microvm::Error();
};

// Its VM was started while the lock was waited for.
const auto stays = [](bool* may_go) {
  *may_go = false;
  return microvm::Error();
};

TEST(exchanged_slots, "a slot that was exchanged after the look is not taken") {
  Host host;
  host.clone("vm");
  Fd looked_at;
  CHECK_OK(microvm::open_folder(host.slot("vm"), &looked_at));
  const microvm::Identity before = host.state("vm").folder;
  CHECK(rename(host.slot("vm").c_str(), (folder() + "/away").c_str()) == 0);
  host.clone("vm");
  bool trashed = true;
  CHECK_OK(microvm::trash_slot(*host.managed, "vm", before, goes, &trashed));
  CHECK(!trashed && exists(host.image("vm")) && host.trash().empty() && host.staged().empty());
  CHECK_OK(microvm::trash_slot(*host.managed, "vm", host.state("vm").folder, stays, &trashed));
  CHECK(!trashed && exists(host.image("vm")));
  CHECK_OK(microvm::trash_slot(*host.managed, "vm", host.state("vm").folder, goes, &trashed));
  CHECK(trashed && !exists(host.slot("vm")));
}

TEST(exchanged_snapshots, "a snapshot that was taken again is not taken for the one that was looked at") {
  Host host;
  const std::string name = "v1.2";
  host.clone(name);
  microvm::ReleaseRequest request;
  request.slot = name;
  Fd looked_at;
  CHECK_OK(microvm::open_folder(host.slot(name), &looked_at));
  request.snapshot_fd = looked_at.get();
  CHECK(rename(host.slot(name).c_str(), (folder() + "/away").c_str()) == 0);
  host.clone(name);
  ReleaseStatus status = ReleaseStatus::kReleased;
  std::string raw_id;
  CHECK_OK(microvm::release_slot(*host.managed, request, &status, &raw_id));
  CHECK(status == ReleaseStatus::kAbsent && exists(host.image(name)) && host.trash().empty());
  Fd now;
  CHECK_OK(microvm::open_folder(host.slot(name), &now));
  request.snapshot_fd = now.get();
  CHECK_OK(microvm::release_slot(*host.managed, request, &status, &raw_id));
  CHECK(status == ReleaseStatus::kReleased && !exists(host.slot(name)));
}

TEST(long_names, "a slot whose name leaves no room for a record is released like any other") {
  Host host;
  const std::string name(255, 'n');
  host.clone(name);
  CHECK(release(host, name) == ReleaseStatus::kReleased);
  CHECK(host.trash().size() == 1 && host.staged().empty());
}

TEST(busy_names, "while another process takes the slot, a release says so and takes nothing") {
  Host host;
  host.clone("vm");
  {
    microvm::NameLock lock;
    bool free = false;
    CHECK_OK(lock.take(*host.managed, "vm", microvm::NameLock::For::kRelease, &free));
    CHECK(free && release(host, "vm") == ReleaseStatus::kBusy && exists(host.image("vm")));
    host.clone("other");
    CHECK(release(host, "other") == ReleaseStatus::kReleased);
  }
  CHECK(release(host, "vm") == ReleaseStatus::kReleased);
}

TEST(images_in_use, "a slot whose image somebody has open stays, if that is asked for") {
  Host host;
  host.clone("vm");
  ReleaseRequest request;
  request.slot = "vm";
  request.refuse_in_use = true;
  {
    Fd vmm(open(host.image("vm").c_str(), O_RDWR | O_CLOEXEC));
    CHECK(vmm);
    CHECK(release(host, request) == ReleaseStatus::kInUse);
    // Somebody who has a lease on it makes opening it fail (EAGAIN), which is no sign that nobody has it open.
    vmm.reset();
    vmm.reset(open(host.image("vm").c_str(), O_RDWR | O_CLOEXEC));
    CHECK(fcntl(vmm.get(), F_SETSIG, SIGURG) == 0 && fcntl(vmm.get(), F_SETLEASE, F_WRLCK) == 0);
    CHECK(release(host, request) == ReleaseStatus::kInUse);
  }
  CHECK(release(host, request) == ReleaseStatus::kReleased);
}

TEST(no_descriptors, "without a free descriptor to look, a slot is not taken for unused") {
  Host host;
  host.clone("vm");
  ReleaseRequest request;
  request.slot = "vm";
  request.refuse_in_use = true;
  rlimit before = {};
  CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const Fd vmm(open(host.image("vm").c_str(), O_RDWR | O_CLOEXEC));
  // As many as are open now, and then one more each time: the look fails at another place until it has enough.
  for (rlim_t limit = static_cast<rlim_t>(vmm.get()) + 1;; limit++) {
    const rlimit tight = {limit, before.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &tight) == 0);
    ReleaseStatus status = ReleaseStatus::kReleased;
    std::string raw_id;
    const microvm::Error error = microvm::release_slot(*host.managed, request, &status, &raw_id);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(error.ok() ? status == ReleaseStatus::kInUse : error.is(EMFILE));
    if (error.ok()) break;
  }
  CHECK(exists(host.slot("vm")));
}

TEST(sweeps, "a sweep takes the folders of dead sessions and leaves those of living ones") {
  Host host;
  microvm::Ref<ManagedFolder> other;
  CHECK_OK(ManagedFolder::open(host.clones(), &other));
  const std::string dead = host.clones() + "/.microvm-rootfs/staging/1-dead";
  CHECK(mkdir(dead.c_str(), 0700) == 0 && mkdir((dead + "/0").c_str(), 0700) == 0);
  write_file(dead + "/0/rootfs.ext4", "x");
  write_file(host.clones() + "/.microvm-rootfs/staging/file", "not ours");
  SweepReport report;
  CHECK_OK(host.managed->sweep(2, &report));
  CHECK(report.more && report.staging_removed == 0);
  report = SweepReport();
  CHECK_OK(host.managed->sweep(1000, &report));
  CHECK(report.staging_removed == 1 && !report.more && !exists(dead));
  CHECK(exists(other->session_path()) && exists(host.clones() + "/.microvm-rootfs/staging/file"));
  CHECK_OK(other->leave());
  CHECK(!exists(other->session_path()));
}

TEST(moved_stores, "a clones folder that was moved away, or removed, is stale") {
  Host host;
  CHECK_OK(host.managed->check_current());
  CHECK(rename(host.clones().c_str(), (folder() + "/moved").c_str()) == 0);
  CHECK_ERRNO(host.managed->check_current(), ESTALE);
  CHECK(mkdir(host.clones().c_str(), 0755) == 0);
  CHECK_ERRNO(host.managed->check_current(), ESTALE);
}

TEST(trees, "a tree is removed within its budget, its links are not followed, at any depth") {
  const std::string tree = folder() + "/tree";
  CHECK(mkdir(tree.c_str(), 0700) == 0 && mkdir((folder() + "/kept").c_str(), 0700) == 0);
  write_file(folder() + "/kept/file", "x");
  CHECK(symlink("../kept", (tree + "/link").c_str()) == 0);
  for (int i = 0; i < 10; i++) write_file(tree + "/" + std::to_string(i), "x");
  Fd parent;
  CHECK_OK(microvm::open_folder(folder(), &parent));
  uint64_t budget = 4;
  CHECK_OK(microvm::remove_tree(parent.get(), "tree", tree, &budget));
  CHECK(budget == 0 && names_in(tree).size() == 7);
  budget = 100;
  CHECK_OK(microvm::remove_tree(parent.get(), "tree", tree, &budget));
  CHECK(budget == 100 - 8 && !exists(tree) && exists(folder() + "/kept/file"));
  CHECK_OK(microvm::remove_tree(parent.get(), "tree", tree, &budget));

  // Deeper than PATH_MAX allows a path to be, and than descriptors would reach.
  constexpr int kDepth = 5000;
  CHECK(mkdir(tree.c_str(), 0700) == 0);
  Fd inner;
  CHECK_OK(microvm::open_folder(tree, &inner));
  for (int i = 0; i < kDepth; i++) {
    CHECK(mkdirat(inner.get(), "d", 0700) == 0);
    Fd next;
    CHECK_OK(microvm::open_folder_at(inner.get(), "d", "d", &next));
    inner = std::move(next);
  }
  inner.reset();
  // In few calls: each removes as much as it walks down again.
  budget = 10;
  CHECK_OK(microvm::remove_tree(parent.get(), "tree", tree, &budget));
  CHECK(budget == 0 && exists(tree));
  budget = 100;
  CHECK_OK(microvm::remove_tree(parent.get(), "tree", tree, &budget));
  CHECK(budget > 0 && !exists(tree));
}

TEST(probes, "whether blocks can be shared is tried, and leaves no trace") {
  Host host;
  Reflinks can = Reflinks::kUnknown;
  CHECK_OK(host.managed->probe_reflink(&can));
  CHECK(can == (reflinks() ? Reflinks::kYes : Reflinks::kNo) && host.staged().empty());
}

}  // namespace
