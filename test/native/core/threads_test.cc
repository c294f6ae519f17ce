// Many threads on one store: what ThreadSanitizer looks at.
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "check.h"
#include "files.h"
#include "host.h"
#include "image/digest.h"
#include "slot/locked_slot.h"
#include "slot/release.h"
#include "system/file.h"
#include "system/lease.h"

using namespace core_test;
using microvm::CloneOutcome;
using microvm::CloneStatus;
using microvm::Ref;
using microvm::ReleaseStatus;
using microvm::Source;

namespace {

constexpr int kThreads = 6;
constexpr int kRounds = 8;

// Runs `work` in several threads at once; a check that failed in one of them fails here.
template <class Work>
void in_threads(Work work) {
  std::atomic<bool> failed{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; i++) {
    threads.emplace_back([i, &work, &failed] {
      try {
        work(i);
      } catch (const Failed&) {
        failed = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(!failed);
}

ReleaseStatus release(const Host& host, const std::string& slot) {
  microvm::ReleaseRequest request;
  request.slot = slot;
  ReleaseStatus status = ReleaseStatus::kAbsent;
  std::string raw_id;
  CHECK_OK(microvm::release_slot(*host.managed, request, &status, &raw_id));
  return status;
}

TEST(clones_at_once, "many clones of one template at once are all whole") {
  Host host;
  in_threads([&](int thread) {
    for (int i = 0; i < kRounds; i++) host.clone("vm-" + std::to_string(thread) + "-" + std::to_string(i));
  });
  const std::string bytes = read_file(host.template_path());
  for (int thread = 0; thread < kThreads; thread++) {
    for (int i = 0; i < kRounds; i++) {
      CHECK(read_file(host.image("vm-" + std::to_string(thread) + "-" + std::to_string(i))) == bytes);
    }
  }
  CHECK(host.staged().empty());
}

TEST(grown_while_read,
     "what is read of a slot while it is grown is of one moment: the old, the new, or one to finish_grow") {
  Host host;
  host.clone("vm");
  const std::string folder = host.slot("vm") + '/';
  const std::string image = folder + microvm::kImage;
  const std::string stamp = folder + microvm::kSizeStamp;
  write_file(stamp, std::to_string(length_of(image)));
  std::atomic<bool> done{false};
  std::thread grower([&] {
    for (uint64_t length = 8 * kMiB; length < 8 * kMiB + 2000; length++) {
      write_file(folder + "grown", "");
      (void)!truncate((folder + "grown").c_str(), static_cast<off_t>(length));
      write_file(folder + microvm::kNewSizeStamp, std::to_string(length));
      rename((folder + "grown").c_str(), image.c_str());
      rename((folder + microvm::kNewSizeStamp).c_str(), stamp.c_str());
    }
    done = true;
  });
  int mixed = 0;
  while (!done) {
    microvm::SlotState state;
    // EBUSY: on a busy machine it is grown again between any two looks.
    if (!microvm::read_slot(*host.managed, "vm", microvm::Look::kAll, &state).ok()) continue;
    const bool pending = state.new_size_stamp.state != microvm::SmallFile::State::kAbsent;
    if (!pending && state.size_stamp.contents != std::to_string(state.image.identity.size)) mixed++;
  }
  grower.join();
  CHECK(mixed == 0);
}

TEST(one_slot_at_once, "of many clones of one id one makes the slot, and all of them find it") {
  Host host;
  std::atomic<int> created{0};
  in_threads([&](int) {
    CloneOutcome outcome;
    const CloneStatus status = host.clone(host.plan("vm", host.independent_rungs()), &outcome);
    CHECK(status == CloneStatus::kCreated || status == CloneStatus::kExists);
    created += status == CloneStatus::kCreated ? 1 : 0;
  });
  CHECK(created == 1 && host.staged().empty());
}

TEST(clone_and_release, "clones, looks, releases and sweeps of one id at once see a whole slot or none") {
  Host host;
  in_threads([&](int thread) {
    for (int i = 0; i < kRounds; i++) {
      if (thread % 3 == 0) {
        CloneOutcome outcome;
        host.clone(host.plan("vm", host.independent_rungs()), &outcome);
      } else if (thread % 3 == 1) {
        const microvm::SlotState state = host.state("vm");
        if (state.kind == microvm::SlotState::Kind::kFolder) {
          CHECK(state.has_image && state.image.identity.size == 2 * kMiB && state.stamp.contents == kDigest);
        }
      } else {
        const ReleaseStatus status = release(host, "vm");
        CHECK(status == ReleaseStatus::kReleased || status == ReleaseStatus::kAbsent);
        microvm::SweepReport report;
        CHECK_OK(host.managed->sweep(100, &report));
      }
    }
  });
  CHECK(host.staged().empty());
}

TEST(digests_at_once, "one open file is hashed, copied and checked by many threads") {
  Host host;
  std::vector<std::string> digests(kThreads);
  in_threads([&](int thread) {
    microvm::Digest digest(host.source);
    while (!digest.done()) {
      CHECK_OK(digest.step(50'000));
      (void)microvm::open_for_writing(host.source->fd());
    }
    digests[static_cast<size_t>(thread)] = digest.hex();
    host.clone("vm-" + std::to_string(thread));
  });
  for (const std::string& digest : digests) CHECK(digest.size() == 64 && digest == digests[0]);
}

TEST(stores_at_once, "sessions that start and end while others sweep") {
  Host host;
  in_threads([&](int thread) {
    for (int i = 0; i < kRounds; i++) {
      if (thread % 2 == 0) {
        Ref<microvm::ManagedFolder> other;
        CHECK_OK(microvm::ManagedFolder::open(host.clones(), &other));
        CHECK(exists(other->session_path()));
        CHECK_OK(other->leave());
      } else {
        microvm::SweepReport report;
        CHECK_OK(host.managed->sweep(1000, &report));
      }
    }
  });
}

TEST(lookers_at_once, "looking whether an image is open does not make opening it fail for others") {
  Host host;
  host.clone("vm");
  const microvm::Identity looked_at = host.state("vm").folder;
  in_threads([&](int thread) {
    for (int i = 0; i < 50 * kRounds; i++) {
      Ref<Source> image;
      microvm::FileInfo info;
      if (thread % 2 == 0) {
        CHECK_OK(Source::open(host.image("vm"), &image, &info));
        (void)microvm::open_elsewhere(image->fd());
      } else {
        bool same = false;
        CHECK_OK(microvm::flush_slot(*host.managed, "vm", looked_at, &same));
        CHECK(same);
        CHECK_OK(Source::open(host.image("vm"), &image, &info));
      }
    }
  });
}

}  // namespace
