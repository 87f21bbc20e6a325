// Where the sum of a token's rows is rounded.
#include "protocol/reduction_order.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace moelink {
namespace {

// `closes` of pulls from the given ranks.
std::vector<std::uint32_t> closes_of(const Topology& topology, const std::vector<int>& ranks) {
  std::vector<Pull> pulls;
  for (const int rank : ranks) pulls.push_back(Pull{Rank(rank), 99, Row(0)});
  close_levels(topology, pulls.data(), static_cast<int>(pulls.size()));
  std::vector<std::uint32_t> closes;
  for (const Pull& pull : pulls) closes.push_back(pull.closes);
  return closes;
}

using Closes = std::vector<std::uint32_t>;

TEST(ReductionOrder, OneRowPerRankOnOneNodeHasASingleLevel) {
  EXPECT_EQ(closes_of({4, 1}, {0, 1, 3}), (Closes{0, 0, 0}));
}

TEST(ReductionOrder, SeveralRowsOfARankAreALevelOfTheirOwn) {
  EXPECT_EQ(closes_of({4, 1}, {0, 0, 2, 3, 3, 3}), (Closes{0, 1, 1, 0, 0, 1}));
}

TEST(ReductionOrder, RanksOfANodeAreALevelWhenThereAreSeveralNodes) {
  EXPECT_EQ(closes_of({4, 2}, {0, 1, 2, 3}), (Closes{0, 1, 0, 1}));
  EXPECT_EQ(closes_of({8, 2}, {1, 2, 3, 6}), (Closes{0, 0, 1, 1}));
}

TEST(ReductionOrder, NodesWithOneRankEachNeedNoLevel) {
  EXPECT_EQ(closes_of({4, 2}, {1, 2}), (Closes{0, 0}));
  EXPECT_EQ(closes_of({4, 4}, {0, 1, 2, 3}), (Closes{0, 0, 0, 0}));
}

TEST(ReductionOrder, RowsOfARankAndRanksOfANodeCloseTogether) {
  EXPECT_EQ(closes_of({4, 2}, {0, 0, 1, 2, 2}), (Closes{0, 1, 2, 0, 2}));
}

TEST(ReductionOrder, SeveralRowsOfOneRankPerNodeNeedOnlyTheRanksLevel) {
  EXPECT_EQ(closes_of({4, 2}, {0, 0, 3}), (Closes{0, 1, 1}));
}

TEST(ReductionOrder, NoRowsAndOneRowCloseNothing) {
  EXPECT_EQ(closes_of({4, 2}, {}), Closes{});
  EXPECT_EQ(closes_of({4, 2}, {2}), Closes{0});
}

}  // namespace
}  // namespace moelink
