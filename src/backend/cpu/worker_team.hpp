// Threads that share the work of one operation.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace moelink {

struct IndexRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// Part `part` of `num_parts` nearly equal pieces of [0, count).
constexpr IndexRange split_range(std::int64_t count, int part, int num_parts) {
  return IndexRange{count * part / num_parts, count * (part + 1) / num_parts};
}

// Helper threads start with the first run that needs them and sleep between runs. run() is called
// by one thread at a time.
class WorkerTeam {
 public:
  using Work = std::function<void(IndexRange)>;

  WorkerTeam() = default;
  ~WorkerTeam();
  WorkerTeam(const WorkerTeam&) = delete;
  WorkerTeam& operator=(const WorkerTeam&) = delete;

  // Splits [0, count) among `num_workers` threads, the caller being one, and returns when all are
  // done. `work` must not throw.
  void run(std::int64_t count, int num_workers, const Work& work);

 private:
  struct Round {
    std::uint64_t number = 0;
    std::int64_t count = 0;
    int num_parts = 0;
    const Work* work = nullptr;
  };

  void serve(int part);
  void ensure_helpers(int num_helpers);

  std::mutex mutex_;
  std::condition_variable started_;
  std::condition_variable finished_;
  std::vector<std::thread> helpers_;
  Round round_;
  int num_running_ = 0;
  bool closing_ = false;
};

}  // namespace moelink
