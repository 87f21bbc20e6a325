// Where ranks live: nodes are equal blocks of consecutive ranks.
#pragma once

#include "moelink/host_device.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Ranks 0 .. num_ranks-1, split into `num_nodes` nodes of equal size. Nodes are hosts, or pieces of
// one host when emulated.
struct Topology {
  int num_ranks = 1;
  int num_nodes = 1;

  MOELINK_HD constexpr int ranks_per_node() const { return num_ranks / num_nodes; }
  MOELINK_HD constexpr Node node_of(Rank rank) const {
    return Node(rank.value() / ranks_per_node());
  }
  MOELINK_HD constexpr LocalRank local_rank_of(Rank rank) const {
    return LocalRank(rank.value() % ranks_per_node());
  }
  MOELINK_HD constexpr Rank rank_at(Node node, LocalRank local) const {
    return Rank(node.value() * ranks_per_node() + local.value());
  }

  friend constexpr bool operator==(const Topology&, const Topology&) = default;
};

}  // namespace moelink
