// What a Buffer of every backend must do. A backend joins by instantiating BufferConformance.
#pragma once

#include <vector>

#include "conformance/buffer_combine_conformance.hpp"
#include "conformance/buffer_dispatch_conformance.hpp"

namespace moelink::test {

inline StreamOptions asynchronously(const Event& previous = {}) {
  StreamOptions stream;
  stream.completion = Completion::kAsync;
  stream.previous_event = previous;
  return stream;
}

TEST_P(BufferConformance, AsynchronousCallsCompleteByTheirEvents) {
  for (const BufferCase& one : in_both_layouts({{.num_tokens = {30, 0, 8}}})) {
    run(one.topology, [&](BufferRank& rank) {
      const DispatchResult received = rank.dispatch(one, asynchronously());
      require(static_cast<bool>(received.event), "dispatch returned no event");
      rank.combine(one, received, {.stream = asynchronously(received.event)});
      rank.combine(one, received, {.num_biases = 1, .stream = asynchronously()});
    });
  }
}

TEST_P(BufferConformance, QueuedCallsRunInTheOrderInWhichTheyWereMade) {
  const BufferCase one{.num_tokens = {21}};
  run(one.topology, [&](BufferRank& rank) {
    const Problem problem = make_problem(one);
    DispatchArguments made = rank.arguments(one, problem);
    made.config.num_worst_tokens = 200;  // so that no call waits for the peers
    std::vector<DispatchResult> received;
    std::vector<CombineArguments> given;
    std::vector<CombineResult> combined;
    CombineOptions options;
    for (int i = 0; i < 5; ++i) {
      made.config.stream = asynchronously(i > 0 ? combined.back().event : Event());
      received.push_back(rank.buffer.dispatch(made.config));
      options.stream = asynchronously(received.back().event);
      given.push_back(rank.arguments(problem, received.back(), options));
      combined.push_back(rank.buffer.combine(given.back().config));
    }
    for (std::size_t i = 0; i < 5; ++i) {
      rank.check(one, problem, received[i]);
      rank.check(problem, options, given[i], combined[i]);
    }
  });
}

TEST_P(BufferConformance, BarrierAndCloseWaitForQueuedCalls) {
  const BufferCase one{};
  run(one.topology, [&](BufferRank& rank) {
    const DispatchResult received = rank.dispatch(one);
    const Problem problem = make_problem(one);
    const CombineOptions options{.stream = asynchronously()};
    const CombineArguments made = rank.arguments(problem, received, options);
    const CombineResult first = rank.buffer.combine(made.config);
    rank.buffer.barrier();
    require(!first.event.pending(), "the barrier did not wait");
    const CombineResult second = rank.buffer.combine(made.config);
    rank.buffer.close();
    require(!second.event.pending(), "close did not wait");
    rank.check(problem, options, made, second);  // the tensors outlive the buffer
  });
}

TEST_P(BufferConformance, SizesThatGrowMissTheWindowAndStillArriveComplete) {
  run({4, 1}, [](BufferRank& rank) {
    std::uint64_t misses = 0;
    for (const std::int64_t num_tokens : {1, 500, 3, 40, 2000, 100}) {
      const BufferCase one{.num_tokens = {num_tokens}, .layout = Layout::kExpertMajor};
      const DispatchResult held = rank.dispatch(one);
      const std::uint64_t now = rank.buffer.memory_statistics().num_window_misses;
      if (num_tokens == 500 || num_tokens == 2000) {
        require(now > misses, "{} tokens fitted the window of a few", num_tokens);
      }
      misses = now;
    }
    for (int i = 0; i < 10; ++i) rank.dispatch({.num_tokens = {100}});
    require(rank.buffer.memory_statistics().num_window_misses == misses,
            "equal sizes missed the window");
  });
}

TEST_P(BufferConformance, MemoryStatisticsFollowTheTensorsThatAreHeld) {
  if (GetParam().through_host) GTEST_SKIP() << "statistics are of the host's side";
  run({2, 1}, [](BufferRank& rank) {
    const MemoryStatistics empty = rank.buffer.memory_statistics();
    require(empty.live_bytes == 0, "{} bytes live at first", empty.live_bytes);
    require(empty.control_bytes > 0 && empty.symmetric_bytes >= empty.control_bytes,
            "control area has {} of {} bytes", empty.control_bytes, empty.symmetric_bytes);
    const BufferCase one{.topology = {2, 1}, .num_tokens = {100}, .num_channels = 512};
    {
      const DispatchResult held = rank.dispatch(one);
      const std::size_t live = rank.buffer.memory_statistics().live_bytes;
      require(live >= held.recv_x.view.num_bytes(), "{} bytes live", live);
    }
    rank.buffer.barrier();
    const MemoryStatistics after = rank.buffer.memory_statistics();
    require(after.live_bytes == 0, "{} bytes live at last", after.live_bytes);
    require(after.peak_live_bytes > 100 * 1024, "peak is {}", after.peak_live_bytes);
    require(after.capacity_bytes >= after.peak_live_bytes, "capacity is {}", after.capacity_bytes);
  });
}

TEST_P(BufferConformance, TensorsHeldForLongDoNotDisturbLaterDispatches) {
  const BufferCase one{.num_tokens = {40}};
  run(one.topology, [&](BufferRank& rank) {
    std::vector<DispatchResult> held;
    for (std::uint64_t i = 0; i < 8; ++i) {
      BufferCase next = one;
      next.seed = i;
      held.push_back(rank.dispatch(next));
      if (i == 3) held.erase(held.begin() + 1);  // leaves a hole
    }
    const std::uint64_t seeds[] = {0, 2, 3, 4, 5, 6, 7};
    for (std::size_t i = 0; i < held.size(); ++i) {
      BufferCase old = one;
      old.seed = seeds[i];
      rank.check(old, make_problem(old), held[i]);
    }
  });
}

TEST_P(BufferConformance, SeveralBuffersOfOneGroupWorkSideBySide) {
  const BufferCase one{.topology = {3, 1}};
  const std::vector<std::string> errors = GetParam().run(3, [&](Bootstrap& bootstrap) {
    const Group group = group_over(bootstrap);
    BufferRank first(GetParam(), group, {});
    BufferRank second(GetParam(), group, {});
    const DispatchResult of_first = first.dispatch(one);
    const DispatchResult of_second = second.dispatch(one);
    second.combine(one, of_second, {});
    first.combine(one, of_first, {});
    first.buffer.close();
    second.combine(one, of_second, {.seed = 3});
    second.buffer.close();
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

}  // namespace moelink::test
