// Small files read while another program writes them: lengths that lie, short reads, interrupts, faults. Linked with
// --wrap=pread and
// --wrap=syscall (statx).
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>

#include "fuzz.h"
#include "system/file.h"

namespace {
fuzz::Bytes script;
std::string contents;
uint64_t told_size = 0;
bool faulted = false;
}  // namespace

extern "C" long __real_syscall(long number, ...);
extern "C" long __wrap_syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  const long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long),
             e = va_arg(list, long);
  va_end(list);
  const long result = __real_syscall(number, a, b, c, d, e);
  if (number == SYS_statx && result == 0) {
    auto* status = reinterpret_cast<struct statx*>(e);
    told_size = script.take<uint8_t>() % 2 == 0 ? contents.size() : script.take<uint64_t>();
    status->stx_size = told_size;
  }
  return result;
}

extern "C" ssize_t __wrap_pread(int, void* buffer, size_t length, off_t offset) {
  const uint8_t what = script.take<uint8_t>();
  if (what == 1 || what == 2) {
    faulted = faulted || what == 1;
    errno = what == 1 ? EIO : EINTR;
    return -1;
  }
  MUST(offset >= 0);
  const size_t left = contents.size() - std::min(contents.size(), static_cast<size_t>(offset));
  size_t count = std::min(left, length);
  if (what % 4 == 3 && count > 1) count = 1 + script.take<uint16_t>() % count;
  std::memcpy(buffer, contents.data() + contents.size() - left, count);
  return static_cast<ssize_t>(count);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static microvm::Fd folder;
  if (!folder) {
    MUST(microvm::open_folder(fuzz::folder(), &folder).ok());
    MUST(microvm::write_small_file(folder.get(), "file", "x", false, "file").ok());
  }
  script = fuzz::Bytes(data, size);
  faulted = false;
  contents.assign(script.take<uint16_t>() % 6000, 'z');
  const std::string own = script.take_string(64);
  contents.replace(0, std::min(own.size(), contents.size()), own.substr(0, contents.size()));

  microvm::SmallFile file;
  const microvm::Error error = microvm::read_small_file(folder.get(), "file", "file", &file);
  MUST(error.ok() ? !faulted || file.state == microvm::SmallFile::State::kUnusable : error.is(EIO));
  // All of it; or as much as there was when the length was asked for, if another program has gone on writing.
  const bool present = error.ok() && file.state == microvm::SmallFile::State::kPresent;
  const bool earlier = present && file.contents.size() == told_size;
  if (present) MUST(file.contents == (earlier ? contents.substr(0, told_size) : contents));
  if (contents.size() > 4096) MUST(earlier || file.state == microvm::SmallFile::State::kUnusable);
  if (file.state != microvm::SmallFile::State::kPresent) MUST(file.contents.empty());
  return 0;
}
