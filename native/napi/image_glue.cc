#include "napi/image_glue.h"

#include <fcntl.h>

#include <string>
#include <utility>
#include <vector>

#include "image/ext4.h"
#include "image/sha256.h"
#include "napi/job.h"
#include "napi/kinds.h"
#include "system/extents.h"
#include "system/file.h"
#include "system/filesystem.h"
#include "system/identity.h"
#include "system/lease.h"
#include "system/own_links.h"

namespace microvm {
namespace {

Napi::Value to_js(Napi::Env env, Openness openness) {
  if (openness != Openness::kOpen && openness != Openness::kFree) return env.Undefined();
  return Napi::Boolean::New(env, openness == Openness::kOpen);
}

class OpenSource {
 public:
  explicit OpenSource(std::string path) : path_(std::move(path)) {}

  Error run() {
    Error error = Source::open(path_, &source_, &info_);
    if (!error.ok()) return error;
    writers_ = open_for_writing(source_->fd());
    filesystem_ = filesystem_id(source_->fd());
    return {};
  }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("source", wrap(env, source_));
    object.Set("info", microvm::to_js(env, info_));
    object.Set("filesystem", filesystem_);
    object.Set("openForWriting", to_js(env, writers_));
    return object;
  }

 private:
  std::string path_;
  Ref<Source> source_;
  FileInfo info_;
  std::string filesystem_;
  Openness writers_ = Openness::kUnknown;
};

class CheckSource {
 public:
  explicit CheckSource(Ref<Source> source) : source_(std::move(source)) {}

  Error run() {
    Error error = stat_fd(source_->fd(), source_->path(), &info_);
    if (error.ok()) writers_ = open_for_writing(source_->fd());
    return error;
  }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("info", microvm::to_js(env, info_));
    object.Set("openForWriting", to_js(env, writers_));
    return object;
  }

 private:
  Ref<Source> source_;
  FileInfo info_;
  Openness writers_ = Openness::kUnknown;
};

class Identities {
 public:
  explicit Identities(std::vector<std::string> paths) : paths_(std::move(paths)) {}

  Error run() {
    for (const std::string& path : paths_) {
      FileInfo info;
      const bool found = stat_at(AT_FDCWD, path.c_str(), Follow::kYes, path, &info).ok() && info.is_regular();
      identities_.push_back(found ? info.identity : Identity());
      filesystems_.push_back(found ? filesystem_of(path, info.identity) : "");
      found_.push_back(found ? 1 : 0);
    }
    return {};
  }

  Napi::Value result(Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, paths_.size());
    for (uint32_t i = 0; i < paths_.size(); i++) {
      if (found_[i] == 0) continue;
      Napi::Object object = microvm::to_js(env, identities_[i]).As<Napi::Object>();
      object.Set("filesystem", filesystems_[i]);
      array.Set(i, object);
    }
    return array;
  }

 private:
  // Most files lie where the one before them does.
  const std::string& filesystem_of(const std::string& path, const Identity& identity) {
    if (last_.empty() || identity.device != device_ || identity.mount != mount_ || mount_ == 0) {
      last_ = filesystem_id_of_path(path, identity);
      device_ = identity.device;
      mount_ = identity.mount;
    }
    return last_;
  }

  std::string last_;
  uint64_t device_ = 0;
  uint64_t mount_ = 0;
  std::vector<std::string> filesystems_;
  std::vector<std::string> paths_;
  std::vector<Identity> identities_;
  std::vector<char> found_;
};

// Symbolic links in one folder, each with what it holds.
class ReadLinks {
 public:
  ReadLinks(std::string folder, std::vector<std::string> names)
      : folder_(std::move(folder)), names_(std::move(names)) {}

  Error run() {
    Fd folder;
    contents_.resize(names_.size());
    Error error = open_folder(folder_, &folder);
    if (error.is(ENOENT)) return {};
    for (size_t i = 0; i < names_.size() && error.ok(); i++) {
      error = read_link_at(folder.get(), names_[i].c_str(), join(folder_, names_[i]), &contents_[i]);
    }
    return error;
  }

  Napi::Value result(Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, names_.size());
    for (uint32_t i = 0; i < names_.size(); i++) {
      if (!contents_[i].empty()) array.Set(i, Napi::String::New(env, contents_[i]));
    }
    return array;
  }

 private:
  std::string folder_;
  std::vector<std::string> names_;
  std::vector<std::string> contents_;
};

class DigestStep {
 public:
  DigestStep(Ref<Digest> digest, uint64_t budget) : digest_(std::move(digest)), budget_(budget) {}

  Error run() { return digest_->step(budget_); }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("bytesDone", static_cast<double>(digest_->position()));
    if (digest_->done()) object.Set("sha256", digest_->hex());
    return object;
  }

 private:
  Ref<Digest> digest_;
  uint64_t budget_;
};

class CountExtents {
 public:
  explicit CountExtents(Ref<Source> source) : source_(std::move(source)) {}

  Error run() { return count_extents(source_->fd(), source_->path(), &count_); }
  Napi::Value result(Napi::Env env) { return Napi::Number::New(env, static_cast<double>(count_)); }

 private:
  Ref<Source> source_;
  uint64_t count_ = 0;
};

class OpenElsewhere {
 public:
  OpenElsewhere(std::string path, bool must_know) : path_(std::move(path)), must_know_(must_know) {}

  Error run() {
    Ref<Source> image;
    FileInfo info;
    Error error = Source::open(path_, &image, &info);
    if (error.ok()) openness_ = open_elsewhere(image->fd());
    return error.ok() && must_know_ ? require_known(openness_, path_) : error;
  }

  Napi::Value result(Napi::Env env) { return to_js(env, openness_); }

 private:
  std::string path_;
  bool must_know_;
  Openness openness_ = Openness::kUnknown;
};

class FillsImage {
 public:
  explicit FillsImage(std::string path) : path_(std::move(path)) {}

  Error run() {
    Ref<Source> image;
    FileInfo info;
    Error error = Source::open(path_, &image, &info);
    return error.ok() ? fills_image(image->fd(), path_, info.identity.size, &fills_) : error;
  }

  Napi::Value result(Napi::Env env) { return Napi::Boolean::New(env, fills_); }

 private:
  std::string path_;
  bool fills_ = false;
};

}  // namespace

Napi::Value open_source(const Napi::CallbackInfo& info) {
  return Job<OpenSource>::start(info.Env(), "microvm:openSource", OpenSource(to_string(info[0])));
}

Napi::Value check_source(const Napi::CallbackInfo& info) {
  Ref<Source> source = unwrap<Source>(info[0]);
  if (!source) return {};
  return Job<CheckSource>::start(info.Env(), "microvm:checkSource", CheckSource(std::move(source)));
}

Napi::Value identities(const Napi::CallbackInfo& info) {
  return Job<Identities>::start(info.Env(), "microvm:identities", Identities(to_strings(info[0])));
}

Napi::Value files_linked_since(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint64_t before = to_size(info[0]);
  uint64_t seen = before;
  const std::vector<LinkedFile> linked = microvm::files_linked_since(&seen);
  // Asked after every use of the clones folder.
  if (seen == before) return env.Undefined();
  Napi::Object object = Napi::Object::New(env);
  Napi::Array files = Napi::Array::New(env, linked.size());
  for (uint32_t i = 0; i < linked.size(); i++) {
    Napi::Object file = microvm::to_js(env, linked[i].identity).As<Napi::Object>();
    file.Set("filesystem", linked[i].filesystem);
    files.Set(i, file);
  }
  object.Set("seen", static_cast<double>(seen));
  object.Set("files", files);
  return object;
}

Napi::Value read_links(const Napi::CallbackInfo& info) {
  return Job<ReadLinks>::start(info.Env(), "microvm:readLinks", ReadLinks(to_string(info[0]), to_strings(info[1])));
}

Napi::Value flush_source(const Napi::CallbackInfo& info) {
  Ref<Source> source = unwrap<Source>(info[0]);
  if (!source) return {};
  return start_silent(info.Env(), "microvm:flushSource",
                      [source] { return flush_if_possible(source->fd(), source->path()); });
}

Napi::Value sha256_of_text(const Napi::CallbackInfo& info) {
  const std::string text = to_string(info[0]);
  char hex[64];
  Sha256 hash;
  hash.update(text.data(), text.size());
  hash.finish_hex(hex);
  return Napi::String::New(info.Env(), hex, sizeof hex);
}

Napi::Value new_digest(const Napi::CallbackInfo& info) {
  Ref<Source> source = unwrap<Source>(info[0]);
  if (!source) return {};
  return wrap(info.Env(), Ref<Digest>(new Digest(std::move(source))));
}

Napi::Value digest_step(const Napi::CallbackInfo& info) {
  Ref<Digest> digest = unwrap<Digest>(info[0]);
  if (!digest) return {};
  return Job<DigestStep>::start(info.Env(), "microvm:digestStep", DigestStep(std::move(digest), to_size(info[1])));
}

Napi::Value extent_count(const Napi::CallbackInfo& info) {
  Ref<Source> source = unwrap<Source>(info[0]);
  if (!source) return {};
  return Job<CountExtents>::start(info.Env(), "microvm:extentCount", CountExtents(std::move(source)));
}

Napi::Value image_open_elsewhere(const Napi::CallbackInfo& info) {
  return Job<OpenElsewhere>::start(info.Env(), "microvm:openElsewhere",
                                   OpenElsewhere(to_string(info[0]), to_bool(info[1])));
}

Napi::Value fills_image(const Napi::CallbackInfo& info) {
  return Job<FillsImage>::start(info.Env(), "microvm:fillsImage", FillsImage(to_string(info[0])));
}

}  // namespace microvm
