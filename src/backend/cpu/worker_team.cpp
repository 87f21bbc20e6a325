// Runs rounds of work on the helper threads.
#include "backend/cpu/worker_team.hpp"

#include <algorithm>

namespace moelink {

WorkerTeam::~WorkerTeam() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  started_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void WorkerTeam::run(std::int64_t count, int num_workers, const Work& work) {
  const auto num_parts = static_cast<int>(std::clamp<std::int64_t>(count, 1, num_workers));
  if (num_parts == 1) {
    work(IndexRange{0, count});
    return;
  }
  ensure_helpers(num_parts - 1);
  {
    const std::lock_guard lock(mutex_);
    round_ = Round{round_.number + 1, count, num_parts, &work};
    num_running_ = num_parts - 1;
  }
  started_.notify_all();
  work(split_range(count, 0, num_parts));
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return num_running_ == 0; });
}

void WorkerTeam::ensure_helpers(int num_helpers) {
  while (static_cast<int>(helpers_.size()) < num_helpers) {
    const int part = static_cast<int>(helpers_.size()) + 1;
    helpers_.emplace_back([this, part] { serve(part); });
  }
}

void WorkerTeam::serve(int part) {
  std::uint64_t last_round = 0;
  for (;;) {
    Round round;
    {
      std::unique_lock lock(mutex_);
      started_.wait(lock, [&] { return closing_ || round_.number != last_round; });
      if (closing_) return;
      last_round = round_.number;
      if (part >= round_.num_parts) continue;
      round = round_;
    }
    (*round.work)(split_range(round.count, part, round.num_parts));
    const std::lock_guard lock(mutex_);
    if (--num_running_ == 0) finished_.notify_one();
  }
}

}  // namespace moelink
