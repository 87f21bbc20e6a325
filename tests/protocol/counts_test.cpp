// Sums over the count matrix.
#include "protocol/counts.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace moelink {
namespace {

// 2 ranks and 4 experts; the numbers tell row and column apart.
const std::vector<std::int32_t> kRows = {
    10, 11, 100, 101, 102, 103,  // rank 0: tokens to ranks 0 and 1, selections of experts 0..3
    20, 21, 200, 201, 202, 203,
};

CountMatrix matrix() { return CountMatrix{kRows.data(), 2, 4}; }

TEST(CountMatrix, RowHoldsTokensOfEachRankThenSelectionsOfEachExpert) {
  static_assert(CountMatrix::row_length(2, 4) == 6);
  EXPECT_EQ(matrix().row(Rank(1)), kRows.data() + 6);
  EXPECT_EQ(matrix().tokens(Rank(0), Rank(1)), 11);
  EXPECT_EQ(matrix().tokens(Rank(1), Rank(0)), 20);
  EXPECT_EQ(matrix().selections(Rank(0), Expert(3)), 103);
  EXPECT_EQ(matrix().selections(Rank(1), Expert(0)), 200);
}

TEST(CountMatrix, SumsBeforeARankLeaveThatRankOut) {
  EXPECT_EQ(matrix().tokens_before(Rank(0), Rank(1)), 0);
  EXPECT_EQ(matrix().tokens_before(Rank(1), Rank(1)), 11);
  EXPECT_EQ(matrix().selections_before(Rank(0), Expert(2)), 0);
  EXPECT_EQ(matrix().selections_before(Rank(1), Expert(2)), 102);
}

TEST(CountMatrix, TotalsAreSumsOverAllRanks) {
  EXPECT_EQ(matrix().num_tokens(Rank(0)), 30);
  EXPECT_EQ(matrix().num_tokens(Rank(1)), 32);
  EXPECT_EQ(matrix().num_selections(Expert(1)), 302);
}

TEST(CountMatrix, SumsDoNotOverflow32Bits) {
  const std::vector<std::int32_t> rows(3 * 4, 2'000'000'000);  // 3 ranks, 1 expert
  const CountMatrix counts{rows.data(), 3, 1};
  EXPECT_EQ(counts.num_tokens(Rank(2)), 6'000'000'000);
  EXPECT_EQ(counts.num_selections(Expert(0)), 6'000'000'000);
}

}  // namespace
}  // namespace moelink
