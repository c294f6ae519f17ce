// Building, publishing, reading and releasing slots.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "check.h"
#include "files.h"
#include "host.h"
#include "slot/fork.h"
#include "slot/identify_images.h"
#include "slot/release.h"
#include "slot/slot_owner_mode.h"

using namespace core_test;
using microvm::CloneOutcome;
using microvm::CloneStatus;
using microvm::Place;
using microvm::ReleaseRequest;
using microvm::ReleaseStatus;
using microvm::Rung;
using microvm::SlotState;
using State = microvm::SmallFile::State;

namespace {

TEST(clones, "a clone has the template's bytes and its stamp, says how it was made, and leaves nothing in staging") {
  Host host;
  CloneOutcome outcome;
  CHECK(host.clone(host.plan("vm", host.independent_rungs()), &outcome) == CloneStatus::kCreated);
  CHECK(outcome.strategy == (reflinks() ? Rung::kReflink : Rung::kCopy));
  CHECK(outcome.attempts.size() == (reflinks() ? 0U : 1U));
  CHECK(read_file(host.image("vm")) == read_file(host.template_path()));
  CHECK(read_file(host.stamp("vm")) == kDigest);
  CHECK(host.staged().empty());
  const SlotState state = host.state("vm");
  CHECK(state.kind == SlotState::Kind::kFolder && state.has_image && state.stamp.contents == kDigest);
  CHECK(state.size_stamp.state == State::kAbsent && state.raw_id.state == State::kAbsent);
  CHECK(state.shares_extents == reflinks());
  CHECK((state.image.mode & 07777) == 0600);
}

TEST(forks, "a slot that is plainly whole is forked by a reflink with its stamps; of any other nothing is made") {
  Host host;
  host.clone("parent");
  SlotState parent;
  CloneStatus status = CloneStatus::kStaged;
  microvm::ForkRequest request;
  request.from = "parent";
  request.name.slot = "child";
  CHECK_OK(microvm::fork_slot(host.managed, request, &parent, &status));
  CHECK(status == CloneStatus::kCopyNeeded);  // nobody says how long the image must be
  request.template_sha256 = kDigest;
  request.template_size = read_file(host.template_path()).size();
  CHECK_OK(microvm::fork_slot(host.managed, request, &parent, &status));
  CHECK(status == (reflinks() ? CloneStatus::kCreated : CloneStatus::kCopyNeeded));
  CHECK(host.state("child").stamp.contents == (reflinks() ? kDigest : ""));
  if (reflinks()) CHECK(read_file(host.image("child")) == read_file(host.template_path()));

  request.name.slot = "parent";
  CHECK_OK(microvm::fork_slot(host.managed, request, &parent, &status));
  CHECK(status == CloneStatus::kExists);
  request.name.slot = "none";
  request.from_raw_id = "parent!";
  CHECK_OK(microvm::fork_slot(host.managed, request, &parent, &status));
  CHECK(status == CloneStatus::kCopyNeeded);
  request.from_raw_id.clear();
  write_file(host.stamp("parent"), "torn");
  CHECK_OK(microvm::fork_slot(host.managed, request, &parent, &status));
  CHECK(status == CloneStatus::kCopyNeeded);
  CHECK(host.state("none").kind == SlotState::Kind::kAbsent);
  CHECK(host.staged().empty());
}

TEST(second_clone, "a slot that is there is read, not made again") {
  Host host;
  host.clone("vm");
  CloneOutcome outcome;
  CHECK(host.clone(host.plan("vm", host.independent_rungs()), &outcome) == CloneStatus::kExists);
  CHECK(outcome.existing.stamp.contents == kDigest);
}

TEST(durable_clone, "a durable clone, with an owner and a mode") {
  Host host;
  Plan plan = host.plan("vm", host.independent_rungs());
  plan.durable = true;
  plan.owner_and_mode.has_owner = plan.owner_and_mode.has_mode = true;
  plan.owner_and_mode.uid = getuid();
  plan.owner_and_mode.gid = getgid();
  plan.owner_and_mode.mode = 0640;
  CloneOutcome outcome;
  CHECK(host.clone(plan, &outcome) == CloneStatus::kCreated);
  CHECK((host.state("vm").image.mode & 07777) == 0640);
  bool same = false;
  const microvm::Identity folder = host.state("vm").folder;
  CHECK_OK(microvm::flush_slot(*host.managed, "vm", folder, &same));
  CHECK(same);
  write_file(host.slot("vm") + "/another", "");
  CHECK_OK(microvm::flush_slot(*host.managed, "vm", folder, &same));
  CHECK(!same);
  CHECK_OK(microvm::flush_slot(*host.managed, "absent", folder, &same));
  CHECK(!same);
}

TEST(hardlinks, "a hardlink has the template's inode, and gets no owner or mode of its own") {
  Host host;
  CloneOutcome outcome;
  Plan plan = host.plan("vm", bits(Rung::kHardlink));
  CHECK(host.clone(plan, &outcome) == CloneStatus::kCreated && outcome.strategy == Rung::kHardlink);
  const SlotState state = host.state("vm");
  CHECK(state.image.identity.same_file(host.info.identity) && state.image.identity.links == 2);
  Plan dressed = host.plan("other", bits(Rung::kHardlink));
  dressed.owner_and_mode.has_mode = true;
  CHECK(host.clone(dressed, &outcome) == CloneStatus::kSharedInode);
  CHECK(!exists(host.slot("other")) && host.staged().empty());
}

TEST(owners_and_modes, "owner and mode are those of the slot that was looked at, whatever its link count") {
  Host host;
  host.clone("vm");
  CHECK(link(host.image("vm").c_str(), (folder() + "/jail").c_str()) == 0);
  SlotState state = host.state("vm");
  microvm::OwnerAndMode owner_and_mode;
  owner_and_mode.has_mode = true;
  owner_and_mode.mode = 0640;
  bool same = false;
  const auto set = [&](const SlotState& looked_at) {
    CHECK_OK(microvm::set_slot_owner_and_mode(*host.managed, "vm", looked_at.folder, looked_at.image.identity,
                                              owner_and_mode, &same));
  };
  set(state);
  CHECK(same && (host.state("vm").image.mode & 07777) == 0640);
  // The same id again, with another image.
  CHECK(rename(host.slot("vm").c_str(), (folder() + "/away").c_str()) == 0);
  host.clone("vm");
  set(state);
  CHECK(!same && (host.state("vm").image.mode & 07777) == 0600);
}

TEST(images, "the files of many images are told, through symbolic links or not") {
  Host host;
  host.clone("vm");
  host.clone("other");
  CHECK(mkdir(host.slot("link").c_str(), 0755) == 0);
  CHECK(symlink("../vm/rootfs.ext4", host.image("link").c_str()) == 0);
  const microvm::Identity image = host.state("vm").image.identity;
  std::vector<microvm::Identity> images;
  const auto identify = [&](microvm::Follow follow) {
    CHECK_OK(microvm::identify_images(host.managed->root_path(), {"absent", "other", "vm", "link"}, follow, &images));
    CHECK(images.size() == 4 && images[0].inode == 0);
    CHECK(images[1].same_file(host.state("other").image.identity) && images[2].same_file(image));
  };
  identify(microvm::Follow::kNo);
  CHECK(!images[3].same_file(image));
  identify(microvm::Follow::kYes);
  CHECK(images[3].same_file(image));
}

TEST(lost_raw_ids, "a stamp says that its slot has a raw id: without it the slot is nobody's") {
  Host host;
  Plan plan = host.plan("v_m", host.independent_rungs());
  plan.sidecars.push_back({microvm::kRawId, "v/m"});
  CloneOutcome outcome;
  CHECK(host.clone(plan, &outcome) == CloneStatus::kCreated);
  CHECK(host.state("v_m").raw_id.contents == "v/m");
  CHECK(unlink((host.slot("v_m") + '/' + microvm::kRawId).c_str()) == 0);
  const microvm::SmallFile lost = host.state("v_m").raw_id;
  CHECK(lost.state == microvm::SmallFile::State::kPresent && lost.contents.empty());
  // What chmod -R did to all slots says nothing of this one.
  CHECK(chmod(host.slot("v_m").c_str(), 01777) == 0);
  CHECK(host.state("v_m").raw_id.state == microvm::SmallFile::State::kAbsent);
  host.clone("vm");
  CHECK(host.state("vm").raw_id.state == microvm::SmallFile::State::kAbsent);
}

TEST(marks, "any file of ours but the image marks a folder as a slot") {
  Host host;
  CHECK(mkdir(host.slot("vm").c_str(), 0755) == 0);
  write_file(host.image("vm"), "x");
  write_file(host.slot("vm") + "/notes", "x");
  CHECK(!host.state("vm").has_sidecars);
  for (const char* name : microvm::kSlotFiles) {
    if (std::string(name) == microvm::kImage) continue;
    write_file(host.slot("vm") + '/' + name, "");
    CHECK(host.state("vm").has_sidecars);
    CHECK(unlink((host.slot("vm") + '/' + name).c_str()) == 0);
  }
}

TEST(restless_images, "an image whose length changes all the time is looked at all the same") {
  Host host;
  host.clone("vm");
  std::atomic<bool> end{false};
  std::thread owner([&] {
    for (off_t size = 1; !end; size = size % 4096 + 1) CHECK(truncate(host.image("vm").c_str(), size) == 0);
  });
  for (int i = 0; i < 200; i++) CHECK(host.state("vm").has_image);
  end = true;
  owner.join();
}

TEST(changed_templates, "a template that changed before the clone, or between clone and publishing, is noticed") {
  Host host;
  Plan plan = host.plan("vm", host.independent_rungs());
  CloneOutcome outcome;
  CHECK_OK(core_test::clone_slot(host.managed, host.source, plan, false, &outcome));
  for (bool done = outcome.status == CloneStatus::kStaged; !done;) CHECK_OK(outcome.staged->copy_step(kMiB, &done));
  CHECK(host.staged().size() == 1);
  write_file(host.template_path(), noise(2 * kMiB, 9));
  CloneStatus status = CloneStatus::kCreated;
  CHECK_OK(outcome.staged->publish(Place::kTop, "vm", plan.expected.size, plan.sidecars, &status));
  CHECK(status == CloneStatus::kSourceChanged);
  CHECK(!exists(host.slot("vm")) && host.staged().empty());
  CHECK(host.clone(plan, &outcome) == CloneStatus::kTemplateChanged);
}

TEST(dropped_clones, "a clone that nobody publishes takes its folder with it") {
  Host host;
  {
    CloneOutcome outcome;
    CHECK_OK(core_test::clone_slot(host.managed, host.source, host.plan("vm", bits(Rung::kCopy)), true, &outcome));
    CHECK(outcome.status == CloneStatus::kCopyNeeded && host.staged().size() == 1);
  }
  CHECK(host.staged().empty());
}

TEST(published_once, "what was published or discarded cannot be published again, whatever lies in the root folder") {
  Host host;
  CloneOutcome outcome;
  CHECK_OK(core_test::clone_slot(host.managed, host.source, host.plan("vm", bits(Rung::kCopy)), true, &outcome));
  bool done = false;
  outcome.staged->discard();
  CHECK_ERRNO(outcome.staged->copy_step(kMiB, &done), EBADF);
  CloneStatus status = CloneStatus::kCreated;
  CHECK_ERRNO(outcome.staged->publish(Place::kTop, "vm", 2 * kMiB, {}, &status), EBADF);
  CHECK_ERRNO(outcome.staged->flush_image(), EBADF);
  bool exchanged = false;
  CHECK_ERRNO(outcome.staged->swap_image(host.managed->root_fd(), "vm", &exchanged), EBADF);
}

TEST(pool, "a ready slot is taken from the pool by a rename, and gets its raw id on the way") {
  Host host;
  for (const char* raw_id : {"", "v/m"}) {
    CloneOutcome ready;
    Plan plan = host.plan("", bits(Rung::kCopy));
    CHECK_OK(core_test::stage_slot(host.managed, host.source, plan, &ready));
    for (bool done = false; !done;) CHECK_OK(ready.staged->copy_step(kMiB, &done));
    CloneStatus status = CloneStatus::kExists;
    CHECK_OK(ready.staged->publish(Place::kPool, "ready", plan.expected.size, plan.sidecars, &status));
    CHECK(status == CloneStatus::kCreated);

    const std::string slot = *raw_id == '\0' ? "vm" : "v_m";
    CloneOutcome outcome;
    Plan taking = host.plan(slot, bits(Rung::kCopy));
    taking.ready = "ready";
    taking.raw_id = raw_id;
    CHECK(host.clone(taking, &outcome) == CloneStatus::kCreated && outcome.pooled);
    CHECK(host.state(slot).raw_id.contents == raw_id);
    taking.slot = "another";
    CloneOutcome made;
    CHECK(host.clone(taking, &made) == CloneStatus::kCreated && !made.pooled);
    CHECK_OK([&] {
      ReleaseRequest request;
      ReleaseStatus released = ReleaseStatus::kAbsent;
      std::string found;
      request.slot = "another";
      return microvm::release_slot(*host.managed, request, &released, &found);
    }());
  }
}

TEST(strange_slots, "what lies in a slot is described, never trusted nor waited for") {
  Host host;
  CHECK(symlink("/etc", host.slot("link").c_str()) == 0);
  write_file(host.slot("file"), "x");
  CHECK(host.state("link").kind == SlotState::Kind::kNotAFolder);
  CHECK(host.state("file").kind == SlotState::Kind::kNotAFolder);
  CHECK(host.state("absent").kind == SlotState::Kind::kAbsent);

  CHECK(mkdir(host.slot("odd").c_str(), 0755) == 0);
  const std::string odd = host.slot("odd") + "/";
  CHECK(mkdir((odd + microvm::kImage).c_str(), 0755) == 0);
  CHECK(mkfifo((odd + microvm::kStamp).c_str(), 0600) == 0);
  CHECK(symlink("/etc/passwd", (odd + microvm::kSizeStamp).c_str()) == 0);
  write_file(odd + microvm::kNewSizeStamp, std::string(4097, '1'));
  write_file(odd + microvm::kRawId, std::string("a\0b\xff", 4));
  const SlotState state = host.state("odd");
  CHECK(state.has_image && !state.image.is_regular());
  CHECK(state.stamp.state == State::kUnusable && state.size_stamp.state == State::kUnusable);
  CHECK(state.new_size_stamp.state == State::kUnusable && state.new_size_stamp.contents.empty());
  CHECK(state.raw_id.state == State::kPresent && state.raw_id.contents == std::string("a\0b\xff", 4));
}

}  // namespace
