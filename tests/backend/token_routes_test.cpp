// The selections of a low latency call by rank and local expert.
#include "backend/cpu/low_latency/token_routes.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "moelink/errors.hpp"

namespace moelink {
namespace {

// 3 ranks with 2 experts each; K = 3.
TokenRoutes routes_of(std::vector<std::int64_t> ids) {
  const auto num_tokens = static_cast<std::int64_t>(ids.size() / 3);
  const TopkList topk(TensorView::contiguous(ids.data(), DType::kInt64, {num_tokens, 3}));
  return TokenRoutes(topk, ExpertMap::make(6, 3), Rank(1));
}

// "rank:local", with "*" for the first selection of its rank, or "-".
std::string text_of(std::span<const TokenRoutes::Selection> selections) {
  std::string text;
  for (const TokenRoutes::Selection& one : selections) {
    text += text.empty() ? "" : " ";
    text += one.rank < 0 ? "-" : std::to_string(one.rank) + ":" + std::to_string(one.local);
    text += one.is_first ? "*" : "";
  }
  return text;
}

TEST(TokenRoutes, NameRankAndLocalExpertAndMarkTheFirstOfEachRank) {
  const TokenRoutes routes = routes_of({1, 5, 0,   //
                                        -1, 2, 2,  //
                                        4, 3, 1});
  EXPECT_EQ(text_of(routes.of(0)), "0:1* 2:1* 0:0");
  EXPECT_EQ(text_of(routes.of(1)), "- 1:0* 1:0");
  EXPECT_EQ(text_of(routes.of(2)), "2:0* 1:1* 0:1*");
  EXPECT_EQ(routes.all().size(), 9U);
}

TEST(TokenRoutes, OfNoTokensAreEmpty) { EXPECT_TRUE(routes_of({}).all().empty()); }

TEST(TokenRoutes, RefuseAnIdOutOfRangeByItsPlace) {
  try {
    routes_of({0, 1, 2, 3, 6, 0});
    FAIL() << "expert 6 of 6 was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("topk_idx[1, 1] is 6 on rank 1"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace moelink
