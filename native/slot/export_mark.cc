#include "slot/export_mark.h"

#include <fcntl.h>

#include <algorithm>
#include <vector>

#include "slot/slot_files.h"
#include "slot/slot_state.h"
#include "system/fd.h"
#include "system/file.h"
#include "system/guarded_folder.h"

namespace microvm {
namespace {

// Of earlier versions, whose mark held the inode number alone: it stands for one name.
constexpr char kUnlisted[] = "";

// The inode number, then the path of each name, each of them with a zero byte after it. False if the mark is of another
// image.
bool parse(const SmallFile& mark, const Identity& image, std::vector<std::string>* names) {
  if (mark.contents == decimal(image.inode)) {
    *names = {kUnlisted};
    return true;
  }
  std::vector<std::string> parts;
  for (size_t from = 0, end = 0; (end = mark.contents.find('\0', from)) != std::string::npos; from = end + 1) {
    parts.push_back(mark.contents.substr(from, end - from));
  }
  if (parts.empty() || parts[0] != decimal(image.inode)) return false;
  names->assign(parts.begin() + 1, parts.end());
  return true;
}

bool leads_to(const std::string& name, const Identity& image) {
  return name == kUnlisted || is_named(AT_FDCWD, name.c_str(), image);
}

// Two paths of one name: by a link or a mount on the way.
struct Name {
  Identity folder;
  std::string base;
};

Error write_mark(int slot_fd, const std::string& path, const Identity& image, std::vector<std::string> names) {
  std::string contents;
  do {
    contents = decimal(image.inode) + '\0';
    for (const std::string& name : names) contents += name + '\0';
    // The oldest are forgotten first.
    if (!names.empty()) names.erase(names.begin());
  } while (contents.size() > kSmallFileLimit);
  Error error = remove_file_at(slot_fd, kExported, path);
  if (!error.ok() && !error.is(ENOENT)) return error;
  return write_small_file(slot_fd, kExported, contents, false, path);
}

Error append(int slot_fd, const std::string& path, const std::string& entry) {
  Fd file(retry_eintr(
      [&] { return openat(slot_fd, kExported, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC); }));
  if (!file) return Error::last("open", path);
  return write_all_at(file.get(), entry.data(), entry.size(), 0, path);
}

Error list_once(int slot_fd, const std::string& slot_path, const Identity& image, const std::string& name) {
  const std::string path = join(slot_path, kExported);
  SmallFile mark;
  std::vector<std::string> names;
  Error error = read_slot_file(slot_fd, slot_path, kExported, &mark);
  if (!error.ok()) return error;
  const bool is_list = parse(mark, image, &names) && mark.contents.back() == '\0';
  if (std::find(names.begin(), names.end(), name) != names.end()) return {};
  const std::string entry = name + '\0';
  // At the end, so that nothing is lost of what another export lists just now.
  if (is_list && mark.contents.size() + entry.size() <= kSmallFileLimit) return append(slot_fd, path, entry);
  names.erase(std::remove_if(names.begin(), names.end(), [&](const auto& each) { return !leads_to(each, image); }),
              names.end());
  names.push_back(name);
  return write_mark(slot_fd, path, image, std::move(names));
}

}  // namespace

Error count_exported(int slot_fd, const std::string& slot_path, const Identity& image, uint64_t* count) {
  SmallFile mark;
  std::vector<std::string> names;
  std::vector<Name> seen;
  *count = 0;
  Error error = read_slot_file(slot_fd, slot_path, kExported, &mark);
  if (!error.ok() || !parse(mark, image, &names)) return error;
  for (const std::string& name : names) {
    if (!leads_to(name, image)) continue;
    std::string folder;
    Name found;
    FileInfo info;
    split_path(name, &folder, &found.base);
    if (name != kUnlisted && !stat_at(AT_FDCWD, folder.c_str(), Follow::kYes, folder, &info).ok()) continue;
    found.folder = info.identity;
    const auto is_same = [&](const Name& other) {
      return other.base == found.base && other.folder.same_file(found.folder);
    };
    if (std::none_of(seen.begin(), seen.end(), is_same)) seen.push_back(found);
  }
  *count = seen.size();
  return {};
}

Error list_exported(int slot_fd, const std::string& slot_path, const Identity& image, const std::string& name) {
  constexpr int kRounds = 16;
  Error error;
  for (int round = 0; round < kRounds; round++) {
    error = list_once(slot_fd, slot_path, image, name);
    // Another export makes the mark just now.
    if (!error.is(EEXIST) && !error.is(ENOENT)) break;
  }
  return error;
}

}  // namespace microvm
