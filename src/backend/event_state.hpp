// What an Event refers to; each backend has its own kind.
#pragma once

namespace moelink {

class EventState {
 public:
  virtual ~EventState() = default;

  virtual bool pending() const = 0;
  virtual void wait() const = 0;  // rethrows the error with which the work ended
  // Makes later work on a CUDA stream wait; where there is none, the calling thread waits.
  virtual void wait_on(void* cuda_stream) const {
    static_cast<void>(cuda_stream);
    wait();
  }
};

}  // namespace moelink
