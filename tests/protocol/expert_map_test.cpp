// Which rank holds an expert, and its name there.
#include "protocol/expert_map.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

TEST(ExpertMap, DealsEqualConsecutiveBlocks) {
  constexpr ExpertMap kMap = ExpertMap::make(12, 4);
  static_assert(kMap.experts_per_rank == 3);
  for (int id = 0; id < 12; ++id) {
    EXPECT_EQ(kMap.owner(Expert(id)), Rank(id / 3)) << id;
    EXPECT_EQ(kMap.local(Expert(id)), LocalExpert(id % 3)) << id;
  }
}

TEST(ExpertMap, GlobalUndoesOwnerAndLocal) {
  for (const int num_ranks : {1, 2, 3, 5, 8}) {
    const ExpertMap map = ExpertMap::make(num_ranks * 7, num_ranks);
    for (Expert expert(0); expert.value() < map.num_experts; expert = expert.next()) {
      EXPECT_EQ(map.global(map.owner(expert), map.local(expert)), expert);
    }
  }
}

TEST(ExpertMap, AcceptsNoSelectionAndIdsBelowTheNumberOfExpertsOnly) {
  constexpr ExpertMap kMap = ExpertMap::make(8, 2);
  EXPECT_TRUE(kMap.is_valid(-1));
  EXPECT_TRUE(kMap.is_valid(0));
  EXPECT_TRUE(kMap.is_valid(7));
  EXPECT_FALSE(kMap.is_valid(8));
  EXPECT_FALSE(kMap.is_valid(-2));
  EXPECT_FALSE(kMap.is_valid(std::int64_t{1} << 32));  // 0 once cut to 32 bits
}

TEST(ExpertMap, LocalizeKeepsIdsOfTheOwnerAndHidesTheOthers) {
  constexpr ExpertMap kMap = ExpertMap::make(8, 2);
  EXPECT_EQ(localize<std::int64_t>(kMap, 6, Rank(1)), 2);
  EXPECT_EQ(localize<std::int64_t>(kMap, 6, Rank(0)), kNoExpert);
  EXPECT_EQ(localize<std::int32_t>(kMap, 0, Rank(0)), 0);
  EXPECT_EQ(localize<std::int32_t>(kMap, kNoExpert, Rank(0)), kNoExpert);
}

}  // namespace
}  // namespace moelink
