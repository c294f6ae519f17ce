#include "napi/assembly_glue.h"

#include <string>
#include <utility>
#include <vector>

#include "image/receive_chunks.h"
#include "napi/job.h"
#include "napi/kinds.h"
#include "system/allocate.h"
#include "system/fd.h"
#include "system/pipe.h"

namespace microvm {
namespace {

class ReceiveChunks {
 public:
  ReceiveChunks(Ref<Pipe> pipe, Fd image, std::string path, ExpectedChunks expected)
      : pipe_(std::move(pipe)), image_(std::move(image)), path_(std::move(path)), expected_(std::move(expected)) {}

  Error run() { return receive_chunks(pipe_->read_end(), image_.get(), path_, expected_, &received_); }

  Napi::Value result(Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("written", static_cast<double>(received_.written));
    object.Set("isWhole", received_.is_whole);
    return object;
  }

 private:
  Ref<Pipe> pipe_;
  Fd image_;
  std::string path_;
  ExpectedChunks expected_;
  ReceivedChunks received_;
};

// Flat: the offset and the length of each, and their digests in one text.
std::vector<Chunk> to_chunks(Napi::Float64Array ranges, const std::string& digests) {
  std::vector<Chunk> chunks(ranges.ElementLength() / 2);
  for (size_t i = 0; i < chunks.size(); i++)
    chunks[i] = {static_cast<uint64_t>(ranges[2 * i]), static_cast<uint32_t>(ranges[2 * i + 1]),
                 digests.substr(64 * i, 64)};
  return chunks;
}

ExpectedChunks to_expected(Napi::Object object) {
  return {object.Get("skipBytes").As<Napi::Number>().Uint32Value(),
          to_chunks(object.Get("ranges").As<Napi::Float64Array>(), to_string(object.Get("sha256s"))),
          to_string(object.Get("endMark"))};
}

// Flat: the start and the end of each.
std::vector<DataRange> to_ranges(Napi::Float64Array numbers) {
  std::vector<DataRange> ranges(numbers.ElementLength() / 2);
  for (size_t i = 0; i < ranges.size(); i++)
    ranges[i] = {static_cast<uint64_t>(numbers[2 * i]), static_cast<uint64_t>(numbers[2 * i + 1])};
  return ranges;
}

using RangesWork = Error (*)(int fd, const std::vector<DataRange>& ranges, std::string_view path);

Napi::Value start_ranges(const Napi::CallbackInfo& info, const char* name, RangesWork work) {
  const std::string path = to_string(info[1]);
  Fd image;
  if (!own_fd(info.Env(), info[0], path, &image)) return {};
  return start_silent(info.Env(), name,
                      [image = std::move(image), path, ranges = to_ranges(info[2].As<Napi::Float64Array>()), work] {
                        return work(image.get(), ranges, path);
                      });
}

}  // namespace

Napi::Value new_pipe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Ref<Pipe> pipe;
  Error error = Pipe::open(&pipe);
  if (!error.ok()) {
    napi_throw(env, to_js(env, error));
    return {};
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("pipe", wrap(env, pipe));
  object.Set("writeFd", pipe->write_end());
  return object;
}

Napi::Value close_write_end(const Napi::CallbackInfo& info) {
  Ref<Pipe> pipe = unwrap<Pipe>(info[0]);
  if (pipe) pipe->close_write_end();
  return info.Env().Undefined();
}

Napi::Value receive_chunks(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Ref<Pipe> pipe = unwrap<Pipe>(info[0]);
  if (!pipe) return {};
  const std::string path = to_string(info[2]);
  Fd image;
  if (!own_fd(env, info[1], path, &image)) return {};
  return Job<ReceiveChunks>::start(
      env, "microvm:receiveChunks",
      ReceiveChunks(std::move(pipe), std::move(image), path, to_expected(info[3].As<Napi::Object>())));
}

Napi::Value reserve_ranges(const Napi::CallbackInfo& info) {
  return start_ranges(info, "microvm:reserveRanges", reserve_all);
}

Napi::Value give_back_ranges(const Napi::CallbackInfo& info) {
  return start_ranges(info, "microvm:giveBackRanges", give_back_all);
}

}  // namespace microvm
