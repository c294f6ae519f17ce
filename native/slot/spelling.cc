#include "slot/spelling.h"

#include <strings.h>

#include "system/tree.h"

namespace microvm {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string in_other_case(std::string name) {
  for (char& c : name) {
    if (is_letter(c)) c = static_cast<char>(c ^ 0x20);
  }
  return name;
}

}  // namespace

Error real_name(const ManagedFolder& managed, const std::string& slot, const Identity& folder, std::string* name) {
  *name = slot;
  if (managed.is_case_sensitive()) return {};
  const std::string other = in_other_case(slot);
  if (other == slot) return {};
  FileInfo info;
  Error error = stat_at(managed.root_fd(), other.c_str(), Follow::kNo, managed.slot_path(other), &info);
  if (error.is(ENOENT) || (error.ok() && !info.identity.same_file(folder))) {
    // Unless somebody took the slot away, or exchanged it, between the two looks.
    const bool is_there = stat_at(managed.root_fd(), slot.c_str(), Follow::kNo, managed.slot_path(slot), &info).ok();
    if (is_there && info.identity.same_file(folder)) managed.set_case_sensitive();
    return {};
  }
  if (!error.ok()) return error;
  FolderReader reader(managed.root_fd(), managed.root_path());
  while (const char* entry = reader.next()) {
    if (slot == entry) {
      *name = slot;
      return {};
    }
    if (strcasecmp(slot.c_str(), entry) == 0) *name = entry;
  }
  return reader.error();
}

}  // namespace microvm
