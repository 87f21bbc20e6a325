// Waiting while several streams of messages go on at a time.
#pragma once

#include "backend/cpu/cpu_context.hpp"
#include "transport/backoff.hpp"

namespace moelink {

// For loops that do whatever can be done at the moment.
class RelayWait {
 public:
  RelayWait(CpuContext& context, Operation operation, Stage stage, Epoch epoch)
      : context_(context),
        wait_context_(context.wait_context(operation, stage)),
        epoch_(epoch),
        backoff_(context.cores) {}

  const Deadline& deadline() const { return wait_context_.deadline; }
  // Gives those that are left the whole time again.
  void restart() { wait_context_.deadline = Deadline::after(context_.timeout); }
  void note_progress() { backoff_.reset(); }
  // Nothing could be done: `awaited` is the next to do something, namely `what`. Throws
  // Error(kTimeout) at the deadline, and Error(kPeerLost) if it or any other rank has given up.
  void pause(Rank awaited, const char* what);

 private:
  static constexpr int kRoundsPerLook = 200;  // between two looks at clock and peers

  CpuContext& context_;
  WaitContext wait_context_;
  Epoch epoch_;
  Backoff backoff_;
  int round_ = 0;
};

}  // namespace moelink
