// Routing functions of the CPU backend on one rank's tokens.
#include "backend/cpu/route.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "moelink/errors.hpp"

namespace moelink {
namespace {

// 3 ranks with 2 experts each; K = 3.
template <class Index>
struct Case {
  std::vector<Index> ids;
  RoutingState state;

  explicit Case(std::vector<Index> list) : ids(std::move(list)) {
    state.num_ranks = 3;
    state.num_experts = 6;
    state.num_topk = 3;
    state.num_tokens = static_cast<std::int64_t>(ids.size() / 3);
  }

  TopkList topk() {
    const DType dtype = sizeof(Index) == 8 ? DType::kInt64 : DType::kInt32;
    return TopkList(TensorView::contiguous(ids.data(), dtype, {state.num_tokens, 3}));
  }
};

std::vector<int> flags(const Tensor& tensor) {
  const auto* begin = tensor.view.as<std::uint8_t>();
  return {begin, begin + tensor.view.num_elements()};
}

std::vector<int> ints(const Tensor& tensor) {
  const auto* begin = tensor.view.as<std::int32_t>();
  return {begin, begin + tensor.view.num_elements()};
}

TEST(RouteTokens, MarksDestinationsOnceAndCountsEverySelection) {
  Case<std::int64_t> one({0, 1, 5,   //
                          -1, 4, 4,  //
                          -1, -1, -1});
  const std::vector<std::int32_t> counts = route_tokens(one.topk(), nullptr, Rank(0), one.state);
  EXPECT_EQ(counts, (std::vector<std::int32_t>{1, 0, 2, /* experts */ 1, 1, 0, 0, 2, 1}));
  EXPECT_EQ(flags(one.state.is_token_in_rank), (std::vector<int>{1, 0, 1, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(one.state.topk_owner, (std::vector<std::int32_t>{0, 0, 2, -1, 2, 2, -1, -1, -1}));
}

TEST(RouteTokens, MaskDecidesTheDestinationsAndDropsSelectionsOfOtherRanks) {
  Case<std::int32_t> one({0, 5, -1, 2, 3, -1});
  const std::uint8_t mask[] = {1, 1, 0, 0, 9, 0};
  const std::vector<std::int32_t> counts = route_tokens(one.topk(), mask, Rank(0), one.state);
  EXPECT_EQ(counts, (std::vector<std::int32_t>{1, 2, 0, /* experts */ 1, 0, 1, 1, 0, 0}));
  EXPECT_EQ(flags(one.state.is_token_in_rank), (std::vector<int>{1, 1, 0, 0, 1, 0}));
  EXPECT_EQ(one.state.topk_owner, (std::vector<std::int32_t>{0, -1, -1, 1, 1, -1}));
}

TEST(RouteTokens, IdOutOfRangeIsNamedWithItsPlaceAndTheLimit) {
  for (const std::int64_t id : {std::int64_t{6}, std::int64_t{-2}, std::int64_t{1} << 32}) {
    Case<std::int64_t> one({0, 1, 2, 0, id, 2});
    try {
      route_tokens(one.topk(), nullptr, Rank(1), one.state);
      FAIL() << "nothing was thrown for " << id;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_EQ(std::string(error.what()),
                "invalid argument: topk_idx[1, 1] is " + std::to_string(id) +
                    " on rank 1: expected -1 or 0 .. num_experts-1, num_experts is 6");
    }
  }
}

TEST(PlaceTokens, ContinuesBehindTheRowsOfLowerRanks) {
  Case<std::int64_t> one({0, 5, -1, 1, -1, -1});
  const std::vector<std::int32_t> own = route_tokens(one.topk(), nullptr, Rank(1), one.state);
  const std::vector<std::int32_t> lower = {7, 0, 3, 4, 3, 0, 0, 0, 3};
  one.state.counts = lower;
  one.state.counts.insert(one.state.counts.end(), own.begin(), own.end());
  one.state.counts.resize(27);
  one.state.layout = Layout::kExpertMajor;
  one.state.expert_alignment = 4;
  place_tokens(one.topk(), Rank(1), one.state);
  EXPECT_EQ(one.state.send_row, (std::vector<std::int32_t>{7, -1, 3, 8, -1, -1}));
  // Expert 0 has 4 + 1 rows, so that expert 1's group starts at 8; expert 5 is second on its rank.
  EXPECT_EQ(one.state.expert_row, (std::vector<std::int32_t>{4, 3, -1, 11, -1, -1}));
}

TEST(QueryLayout, CountsTokensPerRankNodeAndExpert) {
  std::vector<std::int64_t> ids = {0, 1, 2, /**/ 7, 7, -1, /**/ -1, -1, -1};
  const TopkList topk(TensorView::contiguous(ids.data(), DType::kInt64, {3, 3}));
  const LayoutResult result = query_layout(topk, 8, Topology{4, 2}, Rank(0));
  EXPECT_EQ(ints(result.num_tokens_per_rank), (std::vector<int>{1, 1, 0, 1}));
  EXPECT_EQ(ints(result.num_tokens_per_node), (std::vector<int>{1, 1}));
  EXPECT_EQ(ints(result.num_tokens_per_expert), (std::vector<int>{1, 1, 1, 0, 0, 0, 0, 2}));
  EXPECT_EQ(flags(result.is_token_in_rank), (std::vector<int>{1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}));
}

TEST(QueryLayout, OfNoTokensIsZeroEverywhere) {
  const TopkList topk(TensorView::contiguous(nullptr, DType::kInt64, {0, 4}));
  const LayoutResult result = query_layout(topk, 4, Topology{2, 1}, Rank(1));
  EXPECT_EQ(ints(result.num_tokens_per_rank), (std::vector<int>{0, 0}));
  EXPECT_EQ(ints(result.num_tokens_per_expert), (std::vector<int>{0, 0, 0, 0}));
  EXPECT_EQ(result.is_token_in_rank.view.shape[0], 0);
}

}  // namespace
}  // namespace moelink
