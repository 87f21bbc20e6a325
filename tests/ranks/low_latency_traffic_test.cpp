// Ten thousand small low latency rounds with random delays in every stage, each checked exactly.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "conformance/chaotic_ranks.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/low_latency_rounds.hpp"
#include "conformance/thread_ranks.hpp"

namespace moelink::test {
namespace {

constexpr BufferKind kThreads{"Threads", run_thread_ranks, allocate_on_heap, copy_on_heap,
                              copy_on_heap};

// Sleeps for up to 60 us in one of twelve stages.
void delay(const TraceEvent& event) {
  thread_local std::uint64_t num_events =
      std::hash<std::thread::id>()(std::this_thread::get_id()) % 1000;
  const std::uint32_t drawn = draw(++num_events, static_cast<std::uint64_t>(event.stage));
  if (drawn % 12 != 0) return;
  std::this_thread::sleep_for(std::chrono::microseconds(drawn / 12 % 60));
}

std::function<void(Bootstrap&)> rounds_of(const RoundShape& shape, std::uint64_t count,
                                          int num_nodes) {
  return [=](Bootstrap& bootstrap) {
    BufferRank rank(kThreads, group_over(bootstrap, {.num_nodes = num_nodes}), {});
    for (std::uint64_t number = 0; number < count; number += 2) {
      run_pair_of_rounds(rank, shape, number);
    }
    rank.buffer.close();
  };
}

TEST(LowLatencyTraffic, IsExactInTenThousandRoundsUnderRandomDelays) {
  const RoundShape shape{.num_ranks = 3};
  set_trace_hook(delay);
  const auto errors = run_thread_ranks(shape.num_ranks, rounds_of(shape, 10'000, 1));
  set_trace_hook({});
  EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
}

TEST(LowLatencyTraffic, IsExactBetweenNodesUnderRandomDelays) {
  const RoundShape shape{.num_ranks = 4};
  set_trace_hook(delay);
  const auto errors = run_thread_ranks(shape.num_ranks, rounds_of(shape, 1'000, 2));
  set_trace_hook({});
  EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
}

TEST(LowLatencyTraffic, IsExactBetweenNodesAmidChaos) {
  for (const int num_nodes : {2, 4}) {
    const RoundShape shape{.num_ranks = 4};
    const auto errors = run_chaotic_ranks(shape.num_ranks, rounds_of(shape, 400, num_nodes));
    EXPECT_EQ(errors, std::vector<std::string>(errors.size())) << num_nodes << " nodes";
  }
}

}  // namespace
}  // namespace moelink::test
