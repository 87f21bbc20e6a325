// plan_pairs: which pairs, and that those of one round do not disturb one another.
#include "api/network_pairs.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

namespace moelink::test {
namespace {

using Rounds = std::vector<std::vector<RankPair>>;

RankPair pair_of(int lower, int higher) { return {Rank(lower), Rank(higher)}; }

std::set<std::pair<int, int>> all_pairs(const Rounds& rounds) {
  std::set<std::pair<int, int>> pairs;
  for (const auto& round : rounds) {
    for (const RankPair& pair : round) {
      EXPECT_TRUE(pairs.emplace(pair.lower.value(), pair.higher.value()).second) << "twice";
    }
  }
  return pairs;
}

TEST(NetworkPairs, OfOneHostAreAllOneAfterTheOther) {
  const Rounds expected{{pair_of(0, 1)}, {pair_of(0, 2)}, {pair_of(1, 2)}};
  EXPECT_EQ(plan_pairs({0, 0, 0}, NetworkPairs::kHosts), expected);
  EXPECT_EQ(plan_pairs({0, 0, 0}, NetworkPairs::kAll), expected);
  EXPECT_EQ(plan_pairs({0, 0, 0}, NetworkPairs::kRails), expected);
}

TEST(NetworkPairs, OfOneRankAreNone) {
  EXPECT_TRUE(plan_pairs({0}, NetworkPairs::kHosts).empty());
  EXPECT_TRUE(plan_pairs({}, NetworkPairs::kAll).empty());
}

TEST(NetworkPairs, JoinDifferentHostsUnlessAllAreWanted) {
  const std::vector<int> hosts{0, 0, 1, 1};
  EXPECT_EQ(all_pairs(plan_pairs(hosts, NetworkPairs::kHosts)),
            (std::set<std::pair<int, int>>{{0, 2}, {0, 3}, {1, 2}, {1, 3}}));
  EXPECT_EQ(all_pairs(plan_pairs(hosts, NetworkPairs::kAll)).size(), 6u);
}

TEST(NetworkPairs, OfRailsJoinRanksOfTheSamePlace) {
  // Ranks need not be in the order of hosts, nor be as many on each.
  EXPECT_EQ(all_pairs(plan_pairs({0, 1, 0, 1, 1}, NetworkPairs::kRails)),
            (std::set<std::pair<int, int>>{{0, 1}, {2, 3}}));
}

TEST(NetworkPairs, OfOneRoundShareNoHost) {
  const std::vector<int> hosts{0, 0, 1, 1, 2, 2, 3, 3};
  const Rounds rounds = plan_pairs(hosts, NetworkPairs::kHosts);
  EXPECT_EQ(all_pairs(rounds).size(), 24u);
  for (const auto& round : rounds) {
    std::set<int> busy;
    for (const RankPair& pair : round) {
      EXPECT_TRUE(busy.insert(hosts[pair.lower.index()]).second);
      EXPECT_TRUE(busy.insert(hosts[pair.higher.index()]).second);
    }
  }
  EXPECT_EQ(rounds.size(), 12u) << "two pairs at a time";
}

}  // namespace
}  // namespace moelink::test
