// Rules of the low latency calls that a caller can break, and masks.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "conformance/open_buffers.hpp"
#include "conformance/small_low_latency.hpp"
#include "moelink/moelink.hpp"

namespace moelink::test {
namespace {

TEST(LowLatency, ThirdOutstandingOperationIsRefusedUntilAHookIsCalled) {
  std::vector<Buffer> buffers = open_buffers(1);
  SmallLowLatency call(1);
  call.config.receive = ReceivePhase::kByHook;
  auto first = buffers[0].low_latency_dispatch(call.config);
  auto second = buffers[0].low_latency_dispatch(call.config);
  expect_failure(outcome_of([&] { buffers[0].low_latency_dispatch(call.config); }),
                 ErrorCode::kInvalidArgument, {"2 low latency operations are outstanding"});
  first.hook();
  auto third = buffers[0].low_latency_dispatch(call.config);
  second.hook();
  third.hook();
  EXPECT_EQ(third.recv_count.view.as<std::int32_t>()[0], 3);
}

TEST(LowLatency, HookCalledTwiceOrAfterCloseIsRefused) {
  std::vector<Buffer> buffers = open_buffers(1);
  SmallLowLatency call(1);
  call.config.receive = ReceivePhase::kByHook;
  const auto received = buffers[0].low_latency_dispatch(call.config);
  received.hook();
  expect_failure(outcome_of([&] { received.hook(); }), ErrorCode::kInvalidArgument,
                 {"called twice"});
  const auto late = buffers[0].low_latency_dispatch(call.config);
  buffers.clear();
  expect_failure(outcome_of([&] { late.hook(); }), ErrorCode::kInvalidArgument,
                 {"after its buffer was closed"});
}

TEST(LowLatency, ArgumentErrorsNameArgumentValueAndExpectation) {
  std::vector<Buffer> buffers = open_buffers(1);
  const auto refused = [&](auto change, const std::vector<std::string>& words) {
    SmallLowLatency call(1);
    change(call.config);
    expect_failure(outcome_of([&] { buffers[0].low_latency_dispatch(call.config); }),
                   ErrorCode::kInvalidArgument, words);
  };
  refused([](auto& config) { config.num_max_tokens_per_rank = 2; },
          {"x is bfloat16 [3, 128]", "num_max_tokens_per_rank=2", "rank 0"});
  refused([](auto& config) { config.num_max_tokens_per_rank = 5000; }, {"5000", "1 to 4096"});
  refused([](auto& config) { config.x.dtype = DType::kFloat16; }, {"x is float16", "bfloat16"});
  refused([](auto& config) { config.fp8 = ScaleFormat::kPackedUE8M0; }, {"multiple of 512"});
  refused(
      [](auto& config) {
        config.receive = ReceivePhase::kByHook;
        config.stream.completion = Completion::kAsync;
      },
      {"exclude each other"});
}

TEST(LowLatency, StaleCombineBufferIsRefused) {
  std::vector<Buffer> buffers = open_buffers(1);
  const SmallLowLatency call(1);
  const auto received = buffers[0].low_latency_dispatch(call.config);
  buffers[0].low_latency_combine_buffer(received.handle);
  const auto other = buffers[0].low_latency_dispatch(call.config);
  LowLatencyCombineConfig config = call.combine(received);
  config.input = CombineInput::kNextArea;
  expect_failure(outcome_of([&] { buffers[0].low_latency_combine(config); }),
                 ErrorCode::kInvalidArgument, {"stale"});
}

TEST(LowLatency, RanksWithOtherWireFormatsAllLearnOfItAndGoOn) {
  std::vector<Buffer> buffers = open_buffers(3);
  const auto outcomes = on_all_ranks(3, [&](int rank) {
    SmallLowLatency call(3);
    if (rank == 1) call.config.fp8 = ScaleFormat::kFloat32;
    buffers[static_cast<std::size_t>(rank)].low_latency_dispatch(call.config);
  });
  for (const Outcome& outcome : outcomes) {
    expect_failure(outcome, ErrorCode::kInvalidArgument, {"the ranks' calls differ"});
  }
  expect_success(on_all_ranks(3, [&](int rank) {
    const SmallLowLatency call(3);
    buffers[static_cast<std::size_t>(rank)].low_latency_dispatch(call.config);
  }));
}

TEST(Masks, SilentRankIsMaskedInTheCallAndItsExpertsDropOut) {
  const BufferConfig config{.timeout = std::chrono::milliseconds(1000),
                            .survival = Survival::kMask};
  std::vector<Buffer> buffers = open_buffers(3, config);
  expect_success(on_all_ranks(3, [&](int rank) {
    Buffer& buffer = buffers[static_cast<std::size_t>(rank)];
    const SmallLowLatency call(3);
    buffer.low_latency_dispatch(call.config);
    if (rank == 2) return;  // silent from here on
    const auto received = buffer.low_latency_dispatch(call.config);
    if (!buffer.is_masked(Rank(2)) || buffer.is_masked(Rank(1 - rank))) {
      throw Error(ErrorCode::kInternal, "expected rank 2 alone to be masked");
    }
    const auto combined = buffer.low_latency_combine(call.combine(received));
    if (combined.combined_x.view.as<std::uint16_t>()[0] != bits_of_sum(2)) {
      throw Error(ErrorCode::kInternal, "expected the sum of two experts");
    }
  }));
}

TEST(Masks, SilentRankDropsOutOfHighThroughputCallsAlike) {
  const BufferConfig config{.timeout = std::chrono::milliseconds(1000),
                            .survival = Survival::kMask};
  std::vector<Buffer> buffers = open_buffers(3, config);
  expect_success(on_all_ranks(3, [&](int rank) {
    Buffer& buffer = buffers[static_cast<std::size_t>(rank)];
    const SmallLowLatency call(3);
    if (rank == 2) return;
    DispatchConfig dispatch;
    dispatch.x = call.x.view;
    dispatch.topk_idx = call.topk_idx.view;
    dispatch.num_experts = 3;
    const DispatchResult received = buffer.dispatch(dispatch);
    const CombineResult combined =
        buffer.combine({.x = received.recv_x.view, .handle = received.handle});
    if (received.handle->num_recv_tokens() != 6 ||
        combined.combined_x.view.as<std::uint16_t>()[0] != bits_of_sum(2)) {
      throw Error(ErrorCode::kInternal, "expected the rows and the sum of two ranks");
    }
    buffer.close();
  }));
}

TEST(Masks, MaskingOneselfOrNobodyIsRefused) {
  std::vector<Buffer> buffers = open_buffers(1);
  expect_failure(outcome_of([&] { buffers[0].mask_rank(Rank(0)); }), ErrorCode::kInvalidArgument,
                 {"rank is 0", "another rank"});
  expect_failure(outcome_of([&] { buffers[0].mask_rank(Rank(7)); }), ErrorCode::kInvalidArgument,
                 {"rank is 7"});
}

}  // namespace
}  // namespace moelink::test
