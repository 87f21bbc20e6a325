// Low latency calls that differ between ranks: all ranks throw alike, and the buffers stay usable.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "conformance/open_buffers.hpp"
#include "conformance/small_low_latency.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 3;
constexpr int kOddRank = 1;  // makes the other call

class LowLatencyDisagreement : public ::testing::TestWithParam<Survival> {
 protected:
  Buffer& buffer(int rank) { return buffers_[static_cast<std::size_t>(rank)]; }

  // All ranks have opened an area; then rank 1 makes the other call.
  std::vector<Outcome> while_others_dispatch(const std::function<void(Buffer&)>& other_call) {
    expect_all_usable();
    return on_all_ranks(kNumRanks, [&](int rank) {
      if (rank == kOddRank) return other_call(buffer(rank));
      const SmallLowLatency call(kNumRanks);
      buffer(rank).low_latency_dispatch(call.config);
    });
  }

  void expect_all_refused(const std::vector<Outcome>& outcomes, const std::string& difference) {
    for (const Outcome& outcome : outcomes) {
      expect_failure(outcome, ErrorCode::kInvalidArgument, {difference});
    }
    expect_all_usable();
  }

  void expect_all_usable() {
    expect_success(on_all_ranks(kNumRanks, [&](int rank) {
      for (int i = 0; i < 3; ++i) use_low_latency_once(buffer(rank), kNumRanks);
    }));
    expect_usable(buffers_);
    for (int rank = 0; rank < kNumRanks; ++rank) {
      for (int peer = 0; peer < kNumRanks; ++peer) {
        if (peer == rank) continue;
        EXPECT_FALSE(buffer(rank).is_masked(Rank(peer)));
      }
    }
  }

  // Too little memory for the largest num_max_tokens_per_rank.
  std::vector<Buffer> buffers_ =
      open_buffers(kNumRanks, {.max_symmetric_bytes = 6'000'000, .survival = GetParam()});
};

TEST_P(LowLatencyDisagreement, InTheShapeOfDispatchIsNamedWithBothValues) {
  Tensor wide = make_host_tensor(DType::kBFloat16, {3, 2 * kHidden});
  Tensor short_list = make_host_tensor(DType::kInt32, {3, 2});
  for (int i = 0; i < 6; ++i) short_list.view.as<std::int32_t>()[i] = kNoExpert;
  using Change = std::function<void(LowLatencyDispatchConfig&)>;
  const std::vector<std::pair<Change, std::string>> cases = {
      {[](auto& config) { config.num_max_tokens_per_rank = 8; },
       "num_max_tokens_per_rank is 8 on rank 1 but 4 on rank 0"},
      {[&](auto& config) { config.x = wide.view; },
       "row bytes of x is 512 on rank 1 but 256 on rank 0"},
      {[&](auto& config) {
         config.topk_idx = short_list.view;
         config.topk_weights.reset();
       },
       "top-k is 2 on rank 1 but 3 on rank 0"}};
  for (const auto& [change, difference] : cases) {
    SCOPED_TRACE(difference);
    const auto outcomes = while_others_dispatch([&change = change](Buffer& buffer) {
      SmallLowLatency call(kNumRanks);
      change(call.config);
      buffer.low_latency_dispatch(call.config);
    });
    for (int rank = 0; rank < kNumRanks; ++rank) {
      const std::string call = "low_latency_dispatch (rank " + std::to_string(rank) + ")";
      expect_failure(outcomes[static_cast<std::size_t>(rank)], ErrorCode::kInvalidArgument,
                     {call + ": the ranks' calls differ"});
    }
    expect_all_refused(outcomes, difference);
  }
}

TEST_P(LowLatencyDisagreement, InTheOperationNamesBoth) {
  const auto barrier = [](Buffer& buffer) { buffer.barrier(); };
  expect_all_refused(while_others_dispatch(barrier),
                     "operation is barrier on rank 1 but a low latency call on rank 0");
  const auto dispatch = [](Buffer& buffer) {
    const SmallCall small(kNumRanks);
    buffer.dispatch(small.config);
  };
  expect_all_refused(while_others_dispatch(dispatch),
                     "operation is dispatch on rank 1 but a low latency call on rank 0");
}

TEST_P(LowLatencyDisagreement, IsFoundByAHookAndEndsWhatElseIsOutstanding) {
  expect_all_usable();
  std::vector<Outcome> earlier(kNumRanks);
  const auto outcomes = on_all_ranks(kNumRanks, [&](int rank) {
    SmallLowLatency call(kNumRanks);
    call.config.receive = ReceivePhase::kByHook;
    const auto first = buffer(rank).low_latency_dispatch(call.config);
    if (rank == kOddRank) {
      first.hook();
      call.config.num_max_tokens_per_rank = 8;
      buffer(rank).low_latency_dispatch(call.config);
      return;
    }
    const auto second = buffer(rank).low_latency_dispatch(call.config);
    const Outcome found = outcome_of([&] { second.hook(); });
    earlier[static_cast<std::size_t>(rank)] = outcome_of([&] { first.hook(); });
    if (found.code) throw Error(*found.code, found.text);
  });
  for (const int rank : {0, 2}) {
    expect_failure(earlier[static_cast<std::size_t>(rank)], ErrorCode::kInvalidArgument,
                   {"its memory has been given up"});
  }
  expect_all_refused(outcomes, "num_max_tokens_per_rank is 8 on rank 1 but 4 on rank 0");
}

// The odd rank has lost its area in a call that failed there alone; it opens one of the same shape
// while the others are in the operation that it has missed.
TEST_P(LowLatencyDisagreement, OfARankThatMissedACallIsFoundByAll) {
  const auto outcomes = while_others_dispatch([](Buffer& buffer) {
    SmallLowLatency call(kNumRanks);
    call.config.num_max_tokens_per_rank = 4096;
    expect_failure(outcome_of([&] { buffer.low_latency_dispatch(call.config); }),
                   ErrorCode::kInvalidArgument, {"bytes"});
    const SmallLowLatency right(kNumRanks);
    buffer.low_latency_dispatch(right.config);
  });
  expect_all_refused(outcomes, "");
}

INSTANTIATE_TEST_SUITE_P(BothWays, LowLatencyDisagreement,
                         ::testing::Values(Survival::kRaise, Survival::kMask),
                         [](const auto& instance) {
                           return instance.param == Survival::kRaise ? "raising" : "masking";
                         });

}  // namespace
}  // namespace moelink::test
