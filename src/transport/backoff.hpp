// How a thread waits for the network between two looks at it.
#pragma once

#include <chrono>
#include <thread>

namespace moelink {

// First spins, then lets other threads run, then sleeps for moments, as ranks may share cores. The
// looks themselves take long enough to need no pause between them.
class Backoff {
 public:
  void reset() { num_rounds_ = 0; }

  void pause() {
    if (num_rounds_ < kNumSleepless) ++num_rounds_;
    if (num_rounds_ < kNumSpins) return;
    if (num_rounds_ < kNumSleepless) return std::this_thread::yield();
    std::this_thread::sleep_for(kSleep);
  }

 private:
  static constexpr int kNumSpins = 64;
  static constexpr int kNumSleepless = 4096;
  static constexpr std::chrono::microseconds kSleep{50};

  int num_rounds_ = 0;
};

}  // namespace moelink
