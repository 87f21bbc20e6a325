// Grids of low latency operations: enough for what they do, and no more than they are given.
#include <gtest/gtest.h>

#include "kernels/low_latency/launch.hpp"

namespace moelink::kernels {
namespace {

constexpr int kManyBlocks = 132;

template <class Params>
Params params_of(int num_tokens, int num_ranks, std::size_t hidden) {
  Params params;
  LowLatencyLink& link = params.link;
  link.domain.topology = {num_ranks, 1};
  link.area = {.format = LineFormat::kWhole,
               .num_ranks = num_ranks,
               .max_local_experts = 4,
               .max_tokens = 128,
               .num_topk = 8,
               .hidden = hidden};
  link.num_experts = 4 * num_ranks;
  link.num_local = 4;
  link.num_tokens = num_tokens;
  return params;
}

template <class Params>
int plan(int num_tokens, int num_ranks, std::size_t hidden, int num_blocks = kManyBlocks) {
  Params params = params_of<Params>(num_tokens, num_ranks, hidden);
  return plan_low_latency(params, num_blocks);
}

TEST(PlanLowLatency, OfADispatchHasABlockPerTokenAndOneThatAnnounces) {
  EXPECT_EQ(plan<LowLatencyDispatchParams>(0, 2, 128), 1);
  EXPECT_EQ(plan<LowLatencyDispatchParams>(1, 1, 128), 2);
  EXPECT_EQ(plan<LowLatencyDispatchParams>(20, 1, 128), 21);
}

TEST(PlanLowLatency, OfLargeRowsHasABlockPerFourParts) {
  // Of 8 lines each: 121 lines have 72 + 14336 bytes, and 120 have what comes back.
  constexpr int kRowParts = 16;
  constexpr int kReturnParts = 15;
  EXPECT_EQ(plan<LowLatencyDispatchParams>(8, 2, 7168), 8 * 2 * kRowParts / 4);
  EXPECT_EQ(plan<LowLatencyCombineParams>(8, 2, 7168), 8 * 2 * kReturnParts / 4);
  EXPECT_EQ(plan<LowLatencyCombineParams>(1, 3, 7168), (3 * kReturnParts + 3) / 4);
  EXPECT_EQ(plan<LowLatencyCombineParams>(1, 1, 128), 1);
  EXPECT_EQ(plan<LowLatencyCombineParams>(0, 2, 7168), 1);
}

TEST(PlanLowLatency, TakesNoMoreBlocksThanItIsGiven) {
  for (const int given : {1, 2, 17, kManyBlocks}) {
    EXPECT_EQ(plan<LowLatencyDispatchParams>(128, 8, 7168, given), given);
    EXPECT_EQ(plan<LowLatencyCombineParams>(128, 8, 7168, given), given);
  }
  EXPECT_EQ(plan<LowLatencyDispatchParams>(4096, 1024, 16384, 1), 1);
}

TEST(PlanLowLatency, TellsTheKernelsWhatFollowsFromTheShape) {
  auto dispatch = params_of<LowLatencyDispatchParams>(8, 2, 7168);
  dispatch.link.header.format = 1 + static_cast<std::uint32_t>(ScaleFormat::kFloat32);
  plan_low_latency(dispatch, kManyBlocks);
  EXPECT_EQ(dispatch.link.lines.payload_bytes, 7168U);
  EXPECT_EQ(dispatch.link.shared.total, LowLatencyShared::of_dispatch(2, 8, 8, 7168 + 224).total);
  auto combine = params_of<LowLatencyCombineParams>(8, 2, 7168);
  combine.link.header.format = 1;  // numerics, not what rows look like
  plan_low_latency(combine, kManyBlocks);
  EXPECT_EQ(combine.link.lines.return_bytes, 2 * 7168U);
  EXPECT_EQ(combine.link.shared.total, LowLatencyShared::of_combine(2, 8).total);
}

}  // namespace
}  // namespace moelink::kernels
