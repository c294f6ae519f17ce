// A slot's folder with anything in it: read as it is, settled only by a size stamp that is exactly the image's length,
// and released only for its own raw id.
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "slot/locked_slot.h"
#include "slot/release.h"
#include "slot/slot_state.h"
#include "system/file.h"
#include "system/tree.h"

using microvm::ReleaseStatus;
using microvm::SlotState;
using State = microvm::SmallFile::State;

namespace {

std::string slot_file(const char* name) { return fuzz::folder() + "/vm/" + name; }

// What was put under a name.
struct Put {
  State state = State::kAbsent;
  std::string contents;
};

Put put(const char* name, fuzz::Bytes* bytes) {
  const std::string path = slot_file(name);
  Put put;
  put.state = State::kUnusable;
  switch (bytes->take<uint8_t>() % 8) {
    case 0:
      MUST(mkdir(path.c_str(), 0700) == 0);
      break;
    case 1:
      MUST(symlink(bytes->take<uint8_t>() % 2 == 0 ? "/etc/passwd" : name, path.c_str()) == 0);
      break;
    case 2:
      MUST(mkfifo(path.c_str(), 0600) == 0);
      break;
    case 3:
      put.state = State::kAbsent;
      break;
    default: {
      put.contents = bytes->take_string(bytes->take<uint8_t>() % 80);
      if (bytes->take<uint8_t>() == 77) put.contents.resize(4090 + bytes->take<uint8_t>() % 16, '1');
      put.state = put.contents.size() > 4096 ? State::kUnusable : State::kPresent;
      microvm::Fd folder;
      MUST(microvm::open_folder(fuzz::folder() + "/vm", &folder).ok());
      MUST(microvm::write_small_file(folder.get(), name, put.contents, false, path).ok());
      if (put.state == State::kUnusable) put.contents.clear();
    }
  }
  return put;
}

void must_be(const microvm::SmallFile& file, const Put& put) {
  MUST(file.state == put.state && file.contents == put.contents);
}

uint64_t length_of_image() {
  struct stat status = {};
  return lstat(slot_file(microvm::kImage).c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : UINT64_MAX;
}

bool exists(const char* name) {
  struct stat status = {};
  return lstat(slot_file(name).c_str(), &status) == 0;
}

void finish_grow(const microvm::Ref<microvm::ManagedFolder>& managed, const Put& pending) {
  microvm::Ref<microvm::LockedSlot> locked;
  MUST(microvm::LockedSlot::open(managed, "vm", true, &locked).ok());
  const std::string expected = length_of_image() == UINT64_MAX ? "none" : std::to_string(length_of_image());
  const microvm::Error error = locked->finish_grow();
  const bool complete = pending.state == State::kPresent && pending.contents == expected;
  if (error.ok()) {
    MUST(!exists(microvm::kNewSizeStamp));
    if (complete) MUST(exists(microvm::kSizeStamp));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static microvm::Ref<microvm::ManagedFolder> managed;
  if (!managed) MUST(microvm::ManagedFolder::open(fuzz::folder(), &managed).ok());
  fuzz::Bytes bytes(data, size);
  MUST(mkdir((fuzz::folder() + "/vm").c_str(), 0700) == 0);
  const Put image = put(microvm::kImage, &bytes);
  const Put stamp = put(microvm::kStamp, &bytes);
  const Put size_stamp = put(microvm::kSizeStamp, &bytes);
  const Put new_size_stamp = put(microvm::kNewSizeStamp, &bytes);
  const Put raw_id = put(microvm::kRawId, &bytes);

  SlotState state;
  MUST(microvm::read_slot(*managed, "vm", microvm::Look::kAll, &state).ok());
  MUST(state.kind == SlotState::Kind::kFolder && state.has_image == (image.state != State::kAbsent));
  must_be(state.stamp, stamp);
  must_be(state.size_stamp, size_stamp);
  must_be(state.new_size_stamp, new_size_stamp);
  must_be(state.raw_id, raw_id);
  finish_grow(managed, new_size_stamp);

  microvm::ReleaseRequest request;
  request.slot = "vm";
  request.raw_id = bytes.take<uint8_t>() % 2 == 0 ? raw_id.contents : bytes.take_string(20);
  ReleaseStatus status = ReleaseStatus::kAbsent;
  std::string found;
  MUST(microvm::release_slot(*managed, request, &status, &found).ok());
  const bool torn = raw_id.state == State::kUnusable || (raw_id.state == State::kPresent && raw_id.contents.empty());
  const bool nobodys = raw_id.state == State::kAbsent && stamp.state == State::kAbsent;
  MUST(status == (torn                                            ? ReleaseStatus::kTorn
                  : !nobodys && raw_id.contents != request.raw_id ? ReleaseStatus::kCollision
                                                                  : ReleaseStatus::kReleased));
  microvm::SweepReport report;
  MUST(managed->sweep(1000, &report).ok());
  uint64_t budget = 1000;
  MUST(microvm::remove_tree(managed->root_fd(), "vm", fuzz::folder() + "/vm", &budget).ok());
  return 0;
}
