#include "napi/tree_glue.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "napi/job.h"
#include "system/file_facts.h"

namespace microvm {
namespace {

// Paths are bytes: a name need not be UTF-8.
std::string to_bytes(Napi::Value value) {
  if (!value.IsBuffer()) return {};
  auto buffer = value.As<Napi::Buffer<char>>();
  return std::string(buffer.Data(), buffer.Length());
}

Napi::Value to_buffer(Napi::Env env, const std::string& bytes) {
  return Napi::Buffer<char>::Copy(env, bytes.data(), bytes.size());
}

// Numbers of all files in one array, which is quicker than an object for each.
class ReadFacts {
 public:
  static constexpr size_t kNumbers = 11;

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
    auto* next = static_cast<int64_t*>(numbers.Data());
    for (uint32_t i = 0; i < facts_.size(); i++) {
      const FileFacts& facts = facts_[i];
      const FileInfo& info = facts.info;
      const int64_t row[kNumbers] = {info.mode,
                                     info.uid,
                                     info.gid,
                                     static_cast<int64_t>(info.identity.size),
                                     static_cast<int64_t>(info.blocks),
                                     info.identity.mtime_ns,
                                     info.identity.ctime_ns,
                                     static_cast<int64_t>(info.identity.device),
                                     static_cast<int64_t>(info.identity.inode),
                                     info.device_major,
                                     info.device_minor};
      std::memcpy(next, row, sizeof row);
      next += kNumbers;
      if (facts.target.empty() && facts.attributes.empty()) continue;
      Napi::Array text = Napi::Array::New(env);
      uint32_t at = 0;
      text.Set(at++, to_buffer(env, facts.target));
      for (const Attribute& attribute : facts.attributes) {
        text.Set(at++, to_buffer(env, attribute.name));
        text.Set(at++, to_buffer(env, attribute.value));
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

class FindData {
 public:
  FindData(std::string path, uint64_t size) : path_(std::move(path)), size_(size) {}

  Error run() { return data_ranges(path_, size_, &ranges_); }

  Napi::Value result(Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, ranges_.size() * 2);
    uint32_t at = 0;
    for (const DataRange& range : ranges_) {
      array.Set(at++, static_cast<double>(range.start));
      array.Set(at++, static_cast<double>(range.end));
    }
    return array;
  }

 private:
  std::string path_;
  uint64_t size_;
  std::vector<DataRange> ranges_;
};

}  // namespace

Napi::Value file_facts(const Napi::CallbackInfo& info) {
  std::vector<std::string> paths;
  auto array = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) paths.push_back(to_bytes(array.Get(i)));
  return Job<ReadFacts>::start(info.Env(), "microvm:fileFacts", ReadFacts(std::move(paths)));
}

Napi::Value file_data_ranges(const Napi::CallbackInfo& info) {
  return Job<FindData>::start(info.Env(), "microvm:dataRanges", FindData(to_bytes(info[0]), to_size(info[1])));
}

}  // namespace microvm
