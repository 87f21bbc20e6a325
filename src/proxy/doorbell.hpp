// Lets the proxy sleep when it has nothing to do, and wakes it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

namespace moelink {

// Thread-safe. Producers that cannot ring, such as GPUs, are noticed when the sleep ends.
class Doorbell {
 public:
  // Call after having made work visible. Either this sees that the proxy sleeps, or the proxy sees
  // the work: both change sleeping_, so one change comes after the other.
  void ring() {
    if (sleeping_.fetch_add(0, std::memory_order_acq_rel) == 0) return;
    const std::lock_guard lock(mutex_);
    rung_ = true;
    wake_.notify_one();
  }

  // Sleeps for at most `limit` unless there is work.
  void sleep(std::chrono::microseconds limit, const std::function<bool()>& has_work) {
    sleeping_.fetch_add(1, std::memory_order_acq_rel);
    if (!has_work()) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, limit, [this] { return rung_; });
    }
    sleeping_.fetch_sub(1, std::memory_order_acq_rel);
    const std::lock_guard lock(mutex_);
    rung_ = false;
  }

 private:
  std::atomic<int> sleeping_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool rung_ = false;
};

}  // namespace moelink
