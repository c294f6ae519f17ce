#include "slot/fork.h"

namespace microvm {
namespace {

bool is_digest(const std::string& text) {
  bool hexadecimal = text.size() == 64;
  for (char c : text) hexadecimal &= (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  return hexadecimal;
}

bool is_absent(const SmallFile& file) { return file.state == SmallFile::State::kAbsent; }

// Whether the slot has exactly the files that this library gives a slot. TypeScript judges every other slot.
bool is_plain(const SlotState& slot, const ForkRequest& request) {
  const std::string& raw_id = request.from_raw_id;
  const bool own_id = is_absent(slot.raw_id) == raw_id.empty() && slot.raw_id.contents == raw_id;
  const bool own_size = is_absent(slot.size_stamp) ? slot.stamp.contents == request.template_sha256 &&
                                                         slot.image.identity.size == request.template_size
                                                   : slot.size_stamp.contents == decimal(slot.image.identity.size);
  return own_id && own_size && slot.image.is_regular() && is_digest(slot.stamp.contents) &&
         is_absent(slot.new_size_stamp) && is_absent(slot.unsettled) && slot.stack.state != SmallFile::State::kUnusable;
}

}  // namespace

Error fork_slot(const Ref<ManagedFolder>& managed, const ForkRequest& request, SlotState* parent, CloneStatus* status) {
  *status = CloneStatus::kCopyNeeded;
  Error error = read_slot(*managed, request.from, Look::kStamps, parent);
  if (!error.ok() || !is_plain(*parent, request)) return error;
  SlotPlan plan;
  plan.template_path = join(managed->slot_path(request.from), kImage);
  Ref<Source> image;
  FileInfo info;
  error = Source::open(plan.template_path, &image, &info);
  if (error.is(ENOENT)) return {};
  if (!error.ok() || !info.identity.same_image(parent->image.identity)) return error;

  plan.template_expected = plan.expected = info.identity;
  const std::pair<const char*, const SmallFile&> files[] = {
      {kStamp, parent->stamp}, {kStack, parent->stack}, {kSizeStamp, parent->size_stamp}};
  for (const auto& [name, file] : files) {
    if (!is_absent(file)) plan.sidecars.push_back({name, file.contents});
  }
  plan.rungs = static_cast<unsigned>(Rung::kReflink);
  plan.owner_and_mode = request.owner_and_mode;
  plan.durable = request.durable;
  CloneOutcome outcome;
  error = clone_slot(managed, image, Ref<SharedPlan>(new SharedPlan(std::move(plan))), request.name, true, &outcome);
  if (outcome.staged) outcome.staged->discard();
  *status = outcome.status;
  return error;
}

}  // namespace microvm
