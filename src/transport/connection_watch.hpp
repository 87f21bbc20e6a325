// Notices that a peer which could be reached no longer can, where the network only says "again".
#pragma once

#include <chrono>
#include <optional>

namespace moelink {

// Of one peer. A network that keeps connections makes a lost one anew for the next put, which it
// refuses until then: for ever, if the peer has died.
class ConnectionWatch {
 public:
  using Clock = std::chrono::steady_clock;

  // Refusals that go on for so long tell that the connection does not come back.
  static constexpr std::chrono::milliseconds kPatience{1000};
  // Refusals further apart than this say nothing about the time between.
  static constexpr std::chrono::milliseconds kMaxGap{2000};

  void note_accepted() {
    ++num_under_way_;
    refused_since_.reset();
  }
  void note_completed() {
    --num_under_way_;
    was_connected_ = true;
  }
  // A put that never left is no longer under way.
  void note_failed() { --num_under_way_; }

  // The network has had no room for a put, though it may take more. Returns whether the peer must
  // be taken for lost: it has been reached before, nothing on its way to it takes up room, and this
  // has gone on for too long.
  bool note_refused(Clock::time_point now) {
    if (!was_connected_ || num_under_way_ > 0) return false;
    if (!refused_since_ || now - last_refused_ > kMaxGap) refused_since_ = now;
    last_refused_ = now;
    return now - *refused_since_ >= kPatience;
  }

 private:
  bool was_connected_ = false;
  int num_under_way_ = 0;
  std::optional<Clock::time_point> refused_since_;
  Clock::time_point last_refused_;
};

}  // namespace moelink
