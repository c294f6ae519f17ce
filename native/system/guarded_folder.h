// A folder that somebody else may be able to write to, such as a jail, opened so that nobody can lead root elsewhere.
//
// A folder is guarded if root or this process owns it, and nobody else may add names to it or take names away; so is
// everything on the way to it. Symbolic links in guarded folders are the operator's, and are followed (/var/run). From
// the first folder on that is not guarded, no symbolic link is followed, and no ".." leads out: what is opened lies in
// it.
#pragma once

#include <string>
#include <string_view>

#include "system/error.h"
#include "system/fd.h"
#include "system/identity.h"
#include "system/ref.h"

namespace microvm {

class GuardedFolder final : public Shared {
 public:
  // ELOOP, with the path of the link, where a link would have to be followed that somebody else may have made.
  static Error open(const std::string& path, Ref<GuardedFolder>* folder);

  // A folder that is only ours, following every link on the way.
  static Error open_own(const std::string& path, Ref<GuardedFolder>* folder);

  int fd() const { return fd_.get(); }  // O_PATH: for names in it
  const std::string& path() const { return path_; }
  bool is_guarded() const { return guarded_; }

  // Flushes the names in it.
  Error flush_names() const;

 private:
  GuardedFolder(Fd fd, const std::string& path, bool guarded) : fd_(std::move(fd)), path_(path), guarded_(guarded) {}

  const Fd fd_;
  const std::string path_;
  const bool guarded_;
};

// What comes before the last slash ("." or "/" if nothing does), and what comes after it.
void split_path(const std::string& path, std::string* folder, std::string* name);

// Gives an open file a name: by its descriptor, so that it is this file and no other. ENOENT if it has no name left, or
// if this process may not do that: it lacks CAP_DAC_READ_SEARCH, and /proc is not mounted.
Error link_file(int fd, int folder_fd, const char* name, std::string_view path, std::string_view dest);

// Whether link_file can work: it is not known of AT_EMPTY_PATH before it is tried, so this asks for /proc.
bool can_link_file(int fd);

// Whether a name leads to this file.
bool is_named(int folder_fd, const char* name, const Identity& file);

// Takes a name away if it still leads to this file. For undoing what cannot be done to the end.
void unlink_file(int folder_fd, const char* name, const Identity& file);

}  // namespace microvm
