// Pipes between this process and programs.
#pragma once

#include "system/error.h"
#include "system/fd.h"
#include "system/ref.h"

namespace microvm {

// Both ends close on exec: a program has only those that it is given.
Error open_pipe(Fd* read_end, Fd* write_end);

// A pipe to which a program writes its output, for JavaScript to hold.
class Pipe final : public Shared {
 public:
  static Error open(Ref<Pipe>* pipe);

  int read_end() const { return read_end_.get(); }
  int write_end() const { return write_end_.get(); }

  // To be called once the program has its end: the output ends only when nobody else can write.
  void close_write_end() { write_end_.reset(); }

 private:
  Fd read_end_;
  Fd write_end_;
};

}  // namespace microvm
