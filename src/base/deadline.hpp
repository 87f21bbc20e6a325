// A point in time after which a wait gives up.
#pragma once

#include <algorithm>
#include <chrono>

namespace moelink {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline after(std::chrono::milliseconds span) { return Deadline(Clock::now(), span); }

  bool expired() const { return Clock::now() >= end_; }
  std::chrono::milliseconds span() const { return span_; }  // as given: for messages

  // Time left, at least 0 and at most `limit`: how long to sleep before looking again.
  std::chrono::nanoseconds remaining(std::chrono::nanoseconds limit) const {
    const std::chrono::nanoseconds left = end_ - Clock::now();
    return std::clamp(left, std::chrono::nanoseconds::zero(), limit);
  }

 private:
  Deadline(Clock::time_point start, std::chrono::milliseconds span)
      : end_(start + span), span_(span) {}

  Clock::time_point end_;
  std::chrono::milliseconds span_;
};

}  // namespace moelink
