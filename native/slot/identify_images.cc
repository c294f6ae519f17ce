#include "slot/identify_images.h"

#include "slot/slot_files.h"
#include "system/fd.h"
#include "system/file.h"
#include "system/tree.h"

namespace microvm {

Error identify_images(const std::string& folder, const std::vector<std::string>& names, Follow follow,
                      std::vector<Identity>* images) {
  images->assign(names.size(), Identity());
  Fd opened;
  Error error = open_folder(folder, &opened);
  // Gone since it was listed.
  if (error.is(ENOENT)) return {};
  if (!error.ok()) return error;
  for (size_t i = 0; i < names.size(); i++) {
    FileInfo info;
    // What cannot be looked at is no slot and no template of ours. The number of links proves nothing: where two
    // names of a file are cached apart (FUSE), it is old for one of them.
    if (stat_at(opened.get(), join(names[i], kImage).c_str(), follow, folder, &info).ok()) {
      (*images)[i] = info.identity;
    }
  }
  return {};
}

}  // namespace microvm
