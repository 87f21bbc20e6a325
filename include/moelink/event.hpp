// Completion of work on a stream.
#pragma once

#include <memory>

namespace moelink {

class EventState;

// Completion of one asynchronous operation. A default-made event carries nothing and is complete.
// On the CPU backend a stream is a worker queue, on the CUDA backend a CUDA stream.
class Event {
 public:
  Event() = default;
  explicit Event(std::shared_ptr<EventState> state) : state_(std::move(state)) {}

  bool pending() const;  // true while the work runs; never throws
  // Returns when the work is done; rethrows the error with which it ended.
  void wait() const;
  // Makes work enqueued on `cuda_stream` (a cudaStream_t) from now on wait for this event, without
  // blocking the calling thread; on the CPU backend it is wait().
  void wait_on(void* cuda_stream) const;
  explicit operator bool() const { return state_ != nullptr; }
  const std::shared_ptr<EventState>& state() const { return state_; }

 private:
  std::shared_ptr<EventState> state_;
};

}  // namespace moelink
