// How a thread waits for the network between two looks at it.
#pragma once

#include <chrono>
#include <thread>

namespace moelink {

// First spins, then lets other threads run, then sleeps for moments, as ranks may share cores. The
// looks themselves take long enough to need no pause between them.
class Backoff {
 public:
  // Where ranks share cores, who waits takes from who works: it sleeps sooner.
  enum class Cores { kOwn, kShared };
  explicit Backoff(Cores cores = Cores::kOwn)
      : num_spins_(cores == Cores::kOwn ? 64 : 4),
        num_sleepless_(cores == Cores::kOwn ? 4096 : 12) {}

  void reset() { num_rounds_ = 0; }

  void pause() {
    if (num_rounds_ < num_sleepless_) ++num_rounds_;
    if (num_rounds_ < num_spins_) return;
    if (num_rounds_ < num_sleepless_) return std::this_thread::yield();
    std::this_thread::sleep_for(kSleep);
  }

 private:
  static constexpr std::chrono::microseconds kSleep{50};

  int num_spins_;
  int num_sleepless_;
  int num_rounds_ = 0;
};

}  // namespace moelink
