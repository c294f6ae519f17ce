// What an image of a tree needs to know of each file, apart from its contents.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "system/error.h"
#include "system/holes.h"
#include "system/identity.h"

namespace microvm {

struct Attribute {
  std::string name;
  std::string value;
  int error = 0;  // errno, if the file system lists it and does not give its value
};

struct FileFacts {
  FileInfo info;
  std::string target;  // of a symbolic link
  std::vector<Attribute> attributes;
};

// What is made in the folder from now on has the mode that it is made with, and no access list.
Error remove_default_acl(const std::string& folder);

// Never through a symbolic link. A file system without attributes has none.
Error read_facts(const std::string& path, FileFacts* facts);

// All of a small file. Not *whole if it is another file than `inode`, or shorter than `size` by now.
Error read_whole(const std::string& path, uint64_t size, uint64_t inode, std::string* contents, bool* whole);

// Where the file holds data; all of it where the file system does not report holes.
Error data_ranges(const std::string& path, uint64_t size, std::vector<DataRange>* ranges);

}  // namespace microvm
