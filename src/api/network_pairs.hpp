// Which pairs of ranks a check of the network measures, and which of them at the same time.
#pragma once

#include <vector>

#include "moelink/network.hpp"
#include "moelink/types.hpp"

namespace moelink {

struct RankPair {
  Rank lower;
  Rank higher;

  friend bool operator==(const RankPair&, const RankPair&) = default;
};

// Rounds of pairs. No two pairs of a round share a host, so that none disturbs another one; every
// pair of a single host has a round of its own. `hosts` has the host of each rank.
std::vector<std::vector<RankPair>> plan_pairs(const std::vector<int>& hosts, NetworkPairs wish);

}  // namespace moelink
