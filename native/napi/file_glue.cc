#include "napi/file_glue.h"

#include <fcntl.h>

#include <string>
#include <utility>
#include <vector>

#include "napi/job.h"
#include "napi/kinds.h"
#include "napi/slot_js.h"
#include "system/file.h"

namespace microvm {
namespace {

class NewFileCopy {
 public:
  NewFileCopy(Ref<Source> source, Ref<GuardedFolder> folder, std::string name)
      : source_(std::move(source)), folder_(std::move(folder)), name_(std::move(name)) {}

  Error run() { return FileCopy::start(source_, folder_, name_, &copy_); }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("copy", wrap(env, copy_));
    object.Set("reflinked", copy_->reflinked());
    object.Set("errno", -copy_->refused());
    return object;
  }

 private:
  Ref<Source> source_;
  Ref<GuardedFolder> folder_;
  std::string name_;
  Ref<FileCopy> copy_;
};

class FileCopyStep {
 public:
  FileCopyStep(Ref<FileCopy> copy, uint64_t budget) : copy_(std::move(copy)), budget_(budget) {}

  Error run() { return copy_->step(budget_, &done_); }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("bytesDone", static_cast<double>(copy_->copied()));
    object.Set("done", done_);
    return object;
  }

 private:
  Ref<FileCopy> copy_;
  uint64_t budget_;
  bool done_ = false;
};

// Each with what it holds, or its error.
class MeasureFiles {
 public:
  MeasureFiles(Ref<DiskUsage> usage, std::vector<std::string> paths)
      : usage_(std::move(usage)), paths_(std::move(paths)), blocks_(paths_.size()) {}

  Error run() {
    for (size_t i = 0; i < paths_.size(); i++) errors_.push_back(add(paths_[i], &blocks_[i]));
    return {};
  }

  Napi::Value result(Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, paths_.size());
    for (uint32_t i = 0; i < paths_.size(); i++) {
      if (!errors_[i].ok()) {
        array.Set(i, microvm::to_js(env, errors_[i]));
        continue;
      }
      Napi::Object object = Napi::Object::New(env);
      object.Set("aloneBytes", static_cast<double>(blocks_[i].alone));
      object.Set("sharedBytes", static_cast<double>(blocks_[i].shared));
      if (blocks_[i].mapped) object.Set("extents", static_cast<double>(blocks_[i].extents));
      array.Set(i, object);
    }
    return array;
  }

 private:
  Error add(const std::string& path, FileBlocks* blocks) {
    Fd file;
    std::vector<Piece> shared;
    Error error = open_file_at(AT_FDCWD, path.c_str(), path, &file);
    if (error.ok()) error = find_blocks(file.get(), path, blocks, &shared);
    // Whoever may write to it has a lease on it, which keeps everybody else from opening it.
    if (error.is(EAGAIN)) error = count_blocks(path, blocks);
    if (error.ok()) usage_->add(*blocks, shared);
    return error;
  }

  Ref<DiskUsage> usage_;
  std::vector<std::string> paths_;
  std::vector<FileBlocks> blocks_;
  std::vector<Error> errors_;
};

class DiskUsageTotal {
 public:
  explicit DiskUsageTotal(Ref<DiskUsage> usage) : usage_(std::move(usage)) {}

  Error run() {
    bytes_ = usage_->total();
    return {};
  }

  Napi::Value result(Napi::Env env) { return Napi::Number::New(env, static_cast<double>(bytes_)); }

 private:
  Ref<DiskUsage> usage_;
  uint64_t bytes_ = 0;
};

class ReadSmallFile {
 public:
  ReadSmallFile(std::string path, uint64_t limit) : path_(std::move(path)), limit_(limit) {}
  Error run() { return read_small_file(AT_FDCWD, path_.c_str(), path_, &file_, limit_); }
  Napi::Value result(Napi::Env env) { return to_js(env, file_); }

 private:
  std::string path_;
  uint64_t limit_;
  SmallFile file_;
};

}  // namespace

Napi::Value new_file_copy(const Napi::CallbackInfo& info) {
  Ref<Source> source = unwrap<Source>(info[0]);
  if (!source) return {};
  Ref<GuardedFolder> folder = unwrap<GuardedFolder>(info[1]);
  if (!folder) return {};
  return Job<NewFileCopy>::start(info.Env(), "microvm:newFileCopy",
                                 NewFileCopy(std::move(source), std::move(folder), to_string(info[2])));
}

Napi::Value file_copy_step(const Napi::CallbackInfo& info) {
  Ref<FileCopy> copy = unwrap<FileCopy>(info[0]);
  if (!copy) return {};
  return Job<FileCopyStep>::start(info.Env(), "microvm:fileCopyStep", FileCopyStep(std::move(copy), to_size(info[1])));
}

Napi::Value publish_file_copy(const Napi::CallbackInfo& info) {
  Ref<FileCopy> copy = unwrap<FileCopy>(info[0]);
  if (!copy) return {};
  const OwnerAndMode owner_and_mode = to_owner_and_mode(info[1].As<Napi::Object>());
  const bool durable = to_bool(info[2]);
  return start_silent(info.Env(), "microvm:publishFileCopy",
                      [copy, owner_and_mode, durable] { return copy->publish(owner_and_mode, durable); });
}

Napi::Value new_disk_usage(const Napi::CallbackInfo& info) {
  Ref<DiskUsage> whole;
  if (info.Length() > 0) {
    whole = unwrap<DiskUsage>(info[0]);
    if (!whole) return {};
  }
  return wrap(info.Env(), Ref<DiskUsage>(new DiskUsage(std::move(whole))));
}

Napi::Value measure_files(const Napi::CallbackInfo& info) {
  Ref<DiskUsage> usage = unwrap<DiskUsage>(info[0]);
  if (!usage) return {};
  return Job<MeasureFiles>::start(info.Env(), "microvm:measureFiles",
                                  MeasureFiles(std::move(usage), to_strings(info[1])));
}

Napi::Value disk_usage_total(const Napi::CallbackInfo& info) {
  Ref<DiskUsage> usage = unwrap<DiskUsage>(info[0]);
  if (!usage) return {};
  return Job<DiskUsageTotal>::start(info.Env(), "microvm:diskUsageTotal", DiskUsageTotal(std::move(usage)));
}

Napi::Value read_small_file(const Napi::CallbackInfo& info) {
  return Job<ReadSmallFile>::start(info.Env(), "microvm:readSmallFile",
                                   ReadSmallFile(to_string(info[0]), to_size(info[1])));
}

}  // namespace microvm
