#include "napi/tree_glue.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "napi/job.h"
#include "system/file_facts.h"
#include "system/tree.h"

namespace microvm {
namespace {

// Paths are bytes: a name need not be UTF-8.
std::string to_bytes(Napi::Value value) {
  if (!value.IsBuffer()) return {};
  auto buffer = value.As<Napi::Buffer<char>>();
  return std::string(buffer.Data(), buffer.Length());
}

std::vector<std::string> to_paths(Napi::Value value) {
  std::vector<std::string> paths;
  if (!value.IsArray()) return paths;
  auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) paths.push_back(to_bytes(array.Get(i)));
  return paths;
}

Napi::Value to_buffer(Napi::Env env, const std::string& bytes) {
  return Napi::Buffer<char>::Copy(env, bytes.data(), bytes.size());
}

// In one buffer, which is quicker than a string for each, and leaves it to the caller to make them a few at a time.
class ListFolder {
 public:
  ListFolder(std::string path, uint64_t limit) : path_(std::move(path)), limit_(limit) {}

  Error run() {
    FolderReader reader(path_);
    for (uint64_t i = 0; i < limit_; i++) {
      const char* name = reader.next();
      if (name == nullptr) return reader.error();
      entries_.push_back(static_cast<char>(reader.type()));
      entries_.append(name, std::strlen(name) + 1);
    }
    return {};
  }

  Napi::Value result(Napi::Env env) { return to_buffer(env, entries_); }

 private:
  std::string path_;
  uint64_t limit_;
  std::string entries_;
};

// Nanoseconds in 64 bits end in 2262, and ext4 holds times until 2446.
struct SplitTime {
  explicit SplitTime(TimeNs time) {
    ns = static_cast<int64_t>(time % kSecond);
    if (ns < 0) ns += kSecond;
    s = static_cast<int64_t>((time - ns) / kSecond);
  }
  static constexpr int64_t kSecond = 1'000'000'000;
  int64_t s = 0;
  int64_t ns = 0;
};

// Numbers of all files in one array, which is quicker than an object for each.
class ReadFacts {
 public:
  static constexpr size_t kNumbers = 14;

  explicit ReadFacts(std::vector<std::string> paths) : paths_(std::move(paths)), facts_(paths_.size()) {}

  Error run() {
    for (size_t i = 0; i < paths_.size(); i++) {
      Error error = read_facts(paths_[i], &facts_[i]);
      if (!error.ok()) return error;
    }
    return {};
  }

  Napi::Value result(Napi::Env env) {
    Napi::ArrayBuffer numbers = Napi::ArrayBuffer::New(env, facts_.size() * kNumbers * sizeof(int64_t));
    Napi::Array texts = Napi::Array::New(env, facts_.size());
    if (numbers.IsEmpty() || texts.IsEmpty()) return {};  // a worker that is being ended
    auto* next = static_cast<int64_t*>(numbers.Data());
    for (uint32_t i = 0; i < facts_.size(); i++) {
      const FileFacts& facts = facts_[i];
      const FileInfo& info = facts.info;
      const SplitTime mtime{info.identity.mtime_ns};
      const SplitTime ctime{info.identity.ctime_ns};
      const int64_t row[kNumbers] = {info.mode,
                                     info.uid,
                                     info.gid,
                                     static_cast<int64_t>(info.identity.size),
                                     static_cast<int64_t>(info.blocks),
                                     mtime.s,
                                     mtime.ns,
                                     ctime.s,
                                     ctime.ns,
                                     static_cast<int64_t>(info.identity.device),
                                     static_cast<int64_t>(info.identity.inode),
                                     info.device_major,
                                     info.device_minor,
                                     static_cast<int64_t>(info.identity.links)};
      std::memcpy(next, row, sizeof row);
      next += kNumbers;
      if (facts.target.empty() && facts.attributes.empty()) continue;
      Napi::Array text = Napi::Array::New(env);
      uint32_t at = 0;
      text.Set(at++, to_buffer(env, facts.target));
      for (const Attribute& attribute : facts.attributes) {
        text.Set(at++, to_buffer(env, attribute.name));
        if (attribute.error == 0) {
          text.Set(at++, to_buffer(env, attribute.value));
        } else {
          text.Set(at++, attribute.error);
        }
      }
      texts.Set(i, text);
    }
    Napi::Array both = Napi::Array::New(env, 2);
    both.Set(0u, numbers);
    both.Set(1u, texts);
    return both;
  }

 private:
  std::vector<std::string> paths_;
  std::vector<FileFacts> facts_;
};

// Whole small files of the given lengths. Undefined for a file that was replaced or is shorter now.
class ReadSmall {
 public:
  ReadSmall(std::vector<std::string> paths, std::vector<uint64_t> numbers)
      : paths_(std::move(paths)), numbers_(std::move(numbers)), contents_(paths_.size()), whole_(paths_.size()) {}

  Error run() {
    for (size_t i = 0; i < paths_.size(); i++) {
      bool whole = false;
      Error error = read_whole(paths_[i], numbers_[2 * i], numbers_[2 * i + 1], &contents_[i], &whole);
      if (!error.ok()) return error;
      whole_[i] = whole;
    }
    return {};
  }

  Napi::Value result(Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, contents_.size());
    for (uint32_t i = 0; i < contents_.size(); i++) {
      if (whole_[i] != 0) array.Set(i, to_buffer(env, contents_[i]));
    }
    return array;
  }

 private:
  std::vector<std::string> paths_;
  std::vector<uint64_t> numbers_;  // of each file its length and its inode
  std::vector<std::string> contents_;
  std::vector<char> whole_;
};

class FindData {
 public:
  FindData(std::string path, uint64_t size) : path_(std::move(path)), size_(size) {}

  Error run() { return data_ranges(path_, size_, &ranges_); }

  Napi::Value result(Napi::Env env) {
    // Filled without a call into the engine for each number: a file can have a million ranges.
    Napi::Float64Array ends = Napi::Float64Array::New(env, ranges_.size() * 2);
    double* next = ends.Data();
    for (const DataRange& range : ranges_) {
      *next++ = static_cast<double>(range.start);
      *next++ = static_cast<double>(range.end);
    }
    return ends;
  }

 private:
  std::string path_;
  uint64_t size_;
  std::vector<DataRange> ranges_;
};

}  // namespace

Napi::Value remove_default_acl(const Napi::CallbackInfo& info) {
  return start_silent(info.Env(), "microvm:removeDefaultAcl",
                      [folder = to_string(info[0])] { return remove_default_acl(folder); });
}

Napi::Value list_folder(const Napi::CallbackInfo& info) {
  return Job<ListFolder>::start(info.Env(), "microvm:listFolder", ListFolder(to_bytes(info[0]), to_size(info[1])));
}

Napi::Value file_facts(const Napi::CallbackInfo& info) {
  return Job<ReadFacts>::start(info.Env(), "microvm:fileFacts", ReadFacts(to_paths(info[0])));
}

Napi::Value read_small_files(const Napi::CallbackInfo& info) {
  std::vector<std::string> paths = to_paths(info[0]);
  std::vector<uint64_t> numbers;
  auto array = info[1].As<Napi::BigUint64Array>();
  for (size_t i = 0; i < array.ElementLength(); i++) numbers.push_back(array[i]);
  numbers.resize(2 * paths.size());
  return Job<ReadSmall>::start(info.Env(), "microvm:readSmallFiles", ReadSmall(std::move(paths), std::move(numbers)));
}

Napi::Value file_data_ranges(const Napi::CallbackInfo& info) {
  return Job<FindData>::start(info.Env(), "microvm:dataRanges", FindData(to_bytes(info[0]), to_size(info[1])));
}

}  // namespace microvm
