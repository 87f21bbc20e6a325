// Threads that share the work of one operation.
#include "backend/cpu/worker_team.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace moelink {
namespace {

TEST(SplitRange, PartsCoverEverythingInOrder) {
  for (const std::int64_t count : {0, 1, 5, 64, 1001}) {
    for (const int num_parts : {1, 2, 3, 7}) {
      std::int64_t end = 0;
      for (int part = 0; part < num_parts; ++part) {
        const IndexRange range = split_range(count, part, num_parts);
        EXPECT_EQ(range.begin, end);
        EXPECT_LE(range.end - range.begin, count / num_parts + 1);
        end = range.end;
      }
      EXPECT_EQ(end, count);
    }
  }
}

// Runs one round and returns how often each index was visited.
std::vector<int> visits(WorkerTeam& team, std::int64_t count, int num_workers) {
  std::vector<std::atomic<int>> counters(static_cast<std::size_t>(count));
  team.run(count, num_workers, [&](IndexRange range) {
    for (std::int64_t i = range.begin; i < range.end; ++i) {
      counters[static_cast<std::size_t>(i)].fetch_add(1, std::memory_order_relaxed);
    }
  });
  return {counters.begin(), counters.end()};
}

TEST(WorkerTeam, VisitsEveryIndexExactlyOnceWhateverTheNumberOfWorkers) {
  WorkerTeam team;
  for (const int num_workers : {1, 4, 2, 7, 1, 3, 7}) {  // grows, shrinks, grows again
    for (const std::int64_t count : {0, 1, 2, 3, 100, 1003}) {
      EXPECT_EQ(visits(team, count, num_workers),
                std::vector<int>(static_cast<std::size_t>(count), 1))
          << count << " indices, " << num_workers << " workers";
    }
  }
}

TEST(WorkerTeam, ManyShortRoundsMissNothing) {
  WorkerTeam team;
  for (int round = 0; round < 1000; ++round) {
    ASSERT_EQ(visits(team, 8, 2 + round % 3), std::vector<int>(8, 1)) << round;
  }
}

TEST(WorkerTeam, WritesOfWorkersAreVisibleAfterTheRound) {
  WorkerTeam team;
  std::vector<int> plain(1000);
  for (int round = 1; round <= 50; ++round) {
    team.run(1000, 4, [&](IndexRange range) {
      for (std::int64_t i = range.begin; i < range.end; ++i) plain[static_cast<std::size_t>(i)]++;
    });
    ASSERT_EQ(plain, std::vector<int>(1000, round));
  }
}

TEST(WorkerTeam, OneWorkerIsTheCaller) {
  WorkerTeam team;
  std::thread::id executor;
  team.run(10, 1, [&](IndexRange) { executor = std::this_thread::get_id(); });
  EXPECT_EQ(executor, std::this_thread::get_id());
}

}  // namespace
}  // namespace moelink
