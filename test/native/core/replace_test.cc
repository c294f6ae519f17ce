// Replacing the image of a slot that exists.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "files.h"
#include "host.h"
#include "slot/locked_slot.h"
#include "system/file.h"
#include "system/lock.h"

using namespace core_test;
using microvm::CloneOutcome;
using microvm::CloneStatus;
using microvm::FileInfo;
using microvm::LockedSlot;
using microvm::Ref;
using microvm::Rung;
using microvm::Source;
using Replaced = LockedSlot::Replaced;

namespace {

// A slot, locked, and an image staged that can take the place of its own.
struct Replacement {
  Host host;
  Ref<LockedSlot> locked;
  Ref<Source> image;
  FileInfo info;
  CloneOutcome outcome;

  explicit Replacement(bool durable = false) {
    host.clone("vm");
    CHECK_OK(LockedSlot::open(host.managed, "vm", true, &locked));
    CHECK_OK(locked->open_image(&image, &info));
    core_test::Plan plan = host.plan("", bits(Rung::kCopy));
    plan.expected = info.identity;
    plan.durable = durable;
    CHECK_OK(core_test::stage_slot(host.managed, image, plan, &outcome));
    for (bool done = false; !done;) CHECK_OK(outcome.staged->copy_step(kMiB, &done));
    CHECK(truncate(outcome.staged->image_path().c_str(), 4 * kMiB) == 0);
  }

  microvm::Error replace(const std::string& size_stamp, bool refuse_in_use, Replaced* replaced) {
    return locked->replace(*outcome.staged, {image, info.identity, size_stamp, refuse_in_use}, replaced);
  }
  std::string file(const char* name) const { return host.slot("vm") + '/' + name; }
};

TEST(replaces, "a staged image takes the place of a slot's, then the size stamp its own") {
  for (const bool durable : {false, true}) {
    {
      Replacement replacement(durable);
      Replaced replaced = Replaced::kInUse;
      CHECK_OK(replacement.replace("4194304", true, &replaced));
      CHECK(replaced == Replaced::kDone);
      CHECK(length_of(replacement.file(microvm::kImage)) == 4 * kMiB);
      CHECK(read_file(replacement.file(microvm::kSizeStamp)) == "4194304");
      CHECK(!exists(replacement.file(microvm::kNewSizeStamp)));
      CHECK_OK(replacement.host.managed->leave());
    }
    CHECK(rename((folder() + "/clones").c_str(), (folder() + "/old" + (durable ? "1" : "0")).c_str()) == 0);
  }
}

TEST(locks, "a slot is locked by one at a time") {
  Host host;
  host.clone("vm");
  Ref<LockedSlot> first;
  Ref<LockedSlot> second;
  CHECK_OK(LockedSlot::open(host.managed, "vm", true, &first));
  CHECK_ERRNO(LockedSlot::open(host.managed, "vm", true, &second), EWOULDBLOCK);
  CHECK(!second);
  first = Ref<LockedSlot>();
  CHECK_OK(LockedSlot::open(host.managed, "vm", true, &second));
  CHECK_ERRNO(LockedSlot::open(host.managed, "absent", true, &first), ENOENT);
}

TEST(refusals, "an image that is open, or another by now, or released, is not replaced; nothing is left behind") {
  for (const int how : {0, 1, 2}) {
    {
      Replacement replacement;
      microvm::Fd vmm;
      Replaced expected = Replaced::kInUse;
      if (how == 0) {
        vmm.reset(open(replacement.file(microvm::kImage).c_str(), O_RDWR | O_CLOEXEC));
      } else if (how == 1) {
        expected = Replaced::kImageChanged;
        write_file(replacement.file("new"), "another");
        CHECK(rename(replacement.file("new").c_str(), replacement.file(microvm::kImage).c_str()) == 0);
      } else {
        expected = Replaced::kReleased;
        CHECK(rename(replacement.host.slot("vm").c_str(), replacement.host.slot("away").c_str()) == 0);
      }
      const std::string slot = replacement.host.slot(how == 2 ? "away" : "vm");
      const std::vector<std::string> before = names_in(slot);
      Replaced replaced = Replaced::kDone;
      CHECK_OK(replacement.replace("4194304", true, &replaced));
      CHECK(replaced == expected);
      CHECK(names_in(slot) == before);
    }
    CHECK(rename((folder() + "/clones").c_str(), (folder() + "/old" + std::to_string(how)).c_str()) == 0);
  }
}

TEST(full_disks, "a size stamp that cannot be written leaves nothing behind") {
  Replacement replacement;
  const std::vector<std::string> before = names_in(replacement.host.slot("vm"));
  // A file may be made, but not a byte be written into it.
  struct sigaction ignore = {};
  struct sigaction default_action = {};
  ignore.sa_handler = SIG_IGN;
  CHECK(sigaction(SIGXFSZ, &ignore, &default_action) == 0);
  rlimit limit = {};
  CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit nothing = {0, limit.rlim_max};
  CHECK(setrlimit(RLIMIT_FSIZE, &nothing) == 0);
  Replaced replaced = Replaced::kDone;
  const microvm::Error error = replacement.replace("4194304", true, &replaced);
  CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0 && sigaction(SIGXFSZ, &default_action, nullptr) == 0);
  CHECK(error.is(EFBIG));
  CHECK(names_in(replacement.host.slot("vm")) == before);
}

TEST(settling, "a size stamp that was not yet in place is put there if it tells the image's length, else removed") {
  Host host;
  host.clone("vm");
  Ref<LockedSlot> locked;
  CHECK_OK(LockedSlot::open(host.managed, "vm", true, &locked));
  const std::string pending = host.slot("vm") + '/' + microvm::kNewSizeStamp;
  const std::string size = host.slot("vm") + '/' + microvm::kSizeStamp;
  for (const char* wrong : {"", "2097153", "2097152\n", "02097152", "x"}) {
    write_file(pending, wrong);
    CHECK_OK(locked->finish_grow());
    CHECK(!exists(pending) && !exists(size));
  }
  write_file(pending, "2097152");
  CHECK_OK(locked->finish_grow());
  CHECK(!exists(pending) && read_file(size) == "2097152");
  CHECK_OK(locked->finish_grow());
}

TEST(filled, "an image of the right length is not the grown one as long as its ext4 file system is shorter") {
  Host host;
  host.clone("vm");
  Ref<LockedSlot> locked;
  CHECK_OK(LockedSlot::open(host.managed, "vm", true, &locked));
  const std::string pending = host.slot("vm") + '/' + microvm::kNewSizeStamp;
  const std::string size = host.slot("vm") + '/' + microvm::kSizeStamp;
  // Blocks of 4 KiB, groups of 1 MiB with 16 inodes of 256 bytes: tables and 50 blocks are more than the 7 that are
  // left of 15 MiB and 28 KiB.
  constexpr uint64_t kGroup = 256;
  struct {
    uint64_t length, blocks;
    bool grown;
  } const cases[] = {
      {16 * kMiB, 16 * kGroup, true},
      {16 * kMiB + 4095, 16 * kGroup, true},
      {16 * kMiB, 16 * kGroup - 1, false},
      {16 * kMiB, 2 * kGroup, false},
      {16 * kMiB, 15 * kGroup, false},
      {15 * kMiB + 28 * 1024, 15 * kGroup, true},
      {15 * kMiB + 28 * 1024, 15 * kGroup - 1, false},
      {16 * kMiB, 17 * kGroup, true},  // longer than its file: some other fault, and none of growing
      {16 * kMiB, 0, true},            // no superblock
  };
  for (const auto& each : cases) {
    std::string superblock(1024, '\0');
    const auto put = [&](size_t offset, uint64_t value) {
      for (size_t i = 0; i < 4; i++) superblock[offset + i] = static_cast<char>(value >> (8 * i));
    };
    put(0x04, each.blocks);
    put(0x18, 2);
    put(0x20, kGroup);
    put(0x28, 16);
    put(0x38, 0xef53);
    put(0x58, 256);
    write_file(host.image("vm"), std::string(1024, '\0') + superblock);
    CHECK(truncate(host.image("vm").c_str(), static_cast<off_t>(each.length)) == 0);
    write_file(pending, std::to_string(each.length));
    CHECK_OK(locked->finish_grow());
    CHECK(!exists(pending) && exists(size) == each.grown);
    unlink(size.c_str());
  }
  // Cut short inside the superblock.
  for (const uint64_t length : {1080, 1024, 0}) {
    CHECK(truncate(host.image("vm").c_str(), static_cast<off_t>(length)) == 0);
    write_file(pending, std::to_string(length));
    CHECK_OK(locked->finish_grow());
    CHECK(!exists(pending));
    unlink(size.c_str());
  }
}

}  // namespace
