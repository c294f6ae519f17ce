#include "slot/export_image.h"

#include <unistd.h>

#include "slot/export_mark.h"
#include "slot/slot_state.h"
#include "system/errno_policy.h"
#include "system/file.h"

namespace microvm {
namespace {

class Exporter {
 public:
  Exporter(const ManagedFolder& managed, const ExportRequest& request)
      : managed_(managed),
        request_(request),
        image_(*request.image),
        folder_(*request.folder),
        name_(request.name),
        slot_path_(managed.slot_path(request.slot)),
        dest_(join(folder_.path(), name_)) {}

  Error run(ExportOutcome* outcome) {
    Error error = open_folder_at(managed_.root_fd(), request_.slot.c_str(), slot_path_, &slot_);
    if (error.is(ENOENT)) return moved(outcome);
    if (error.ok()) error = stat_fd(image_.fd(), image_.path(), &info_);
    if (!error.ok()) return error;
    if (!is_slots()) return moved(outcome);
    const bool was_there = is_named(folder_.fd(), name_.c_str(), info_.identity);
    error = write_export_mark();
    if (error.is(ENOENT) && !is_slots()) return moved(outcome);  // somebody empties the slot
    if (error.ok() && !was_there) error = link(outcome);
    if (!error.ok() || outcome->status != ExportStatus::kLinked) return error;
    error = finish(outcome);
    // Not taken back if only its flush failed: another export may have found the link, and succeeded.
    if (!was_there && outcome->status != ExportStatus::kLinked) {
      unlink_file(folder_.fd(), name_.c_str(), info_.identity);
    }
    return error;
  }

 private:
  bool is_slots() const { return is_named(slot_.get(), kImage, info_.identity); }

  static Error moved(ExportOutcome* outcome) {
    outcome->status = ExportStatus::kMoved;
    return {};
  }

  // An export mark that lists a name which is not there does no harm, so nothing is ever taken from it: somebody else
  // may export the slot just now.
  Error write_export_mark() {
    Error error = list_exported(slot_.get(), slot_path_, info_.identity, dest_);
    return error.ok() && request_.durable ? flush_export_mark(join(slot_path_, kExported)) : error;
  }

  // Also one that somebody wrote without flushing it.
  Error flush_export_mark(const std::string& path) {
    Fd file;
    Error error = open_file_at(slot_.get(), kExported, path, &file);
    if (error.ok()) error = flush(file.get(), path);
    return error.ok() ? flush(slot_.get(), slot_path_) : error;
  }

  Error link(ExportOutcome* outcome) {
    Error error = link_file(image_.fd(), folder_.fd(), name_.c_str(), image_.path(), dest_);
    // A process without the privilege, or without /proc: by the name, which is looked at again afterwards.
    if (error.is(ENOENT) && is_slots() && !can_link_file(image_.fd())) {
      error = {};
      if (retry_eintr([&] { return linkat(slot_.get(), kImage, folder_.fd(), name_.c_str(), 0); }) < 0) {
        error = Error::last("link", image_.path(), dest_);
      }
    }
    if (error.ok()) return {};
    const bool refused = !error.is(EEXIST) && !error.is(ENOENT) && verdict_of(error.code) == Verdict::kNextRung;
    if (error.is(ENOENT) && !is_slots()) return moved(outcome);
    if (!refused) return error;
    outcome->status = ExportStatus::kRefused;
    outcome->refused = error.code;
    return {};
  }

  Error finish(ExportOutcome* outcome) {
    // Growing puts another image in this one's place: then the link would be to a disk that nobody has.
    if (!is_slots() || !is_named(folder_.fd(), name_.c_str(), info_.identity)) return moved(outcome);
    if (request_.keeps_owner_and_mode && !has_owner_and_mode(info_, request_.owner_and_mode)) {
      outcome->status = ExportStatus::kKept;
      return {};
    }
    Error error = give_owner_and_mode();
    if (!error.ok() || !request_.durable) return error;
    error = flush(image_.fd(), dest_);
    if (error.ok()) error = folder_.flush_names();
    return error.after_change();
  }

  // By the new name: FUSE caches the attributes of each name of a file on their own.
  Error give_owner_and_mode() {
    if (request_.owner_and_mode.empty()) return {};
    Fd file;
    FileInfo info;
    Error error = open_file_at(folder_.fd(), name_.c_str(), dest_, &file);
    if (error.ok()) error = stat_fd(file.get(), dest_, &info);
    if (error.ok() && !info.identity.same_file(info_.identity)) error = Error::of(ESTALE, "open", dest_);
    return error.ok() ? set_owner_and_mode(file.get(), request_.owner_and_mode, dest_) : error;
  }

  const ManagedFolder& managed_;
  const ExportRequest& request_;
  const Source& image_;
  const GuardedFolder& folder_;
  const std::string& name_;
  const std::string slot_path_;
  const std::string dest_;
  Fd slot_;
  FileInfo info_;
};

}  // namespace

Error export_image(const ManagedFolder& managed, const ExportRequest& request, ExportOutcome* outcome) {
  return Exporter(managed, request).run(outcome);
}

}  // namespace microvm
