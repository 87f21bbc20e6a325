// Who carries the tokens of whom over the network, and to which ranks.
#pragma once

#include "moelink/config.hpp"
#include "moelink/host_device.hpp"
#include "moelink/topology.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Ranks of other nodes are reached in groups: a token crosses the network once for each group in
// which it has a destination, to the carrier of its source, which forwards it inside the group. A
// group is a node, or with kDirect a rank.
struct RelayPlan {
  Topology topology;
  NetworkPath path = NetworkPath::kHierarchical;

  MOELINK_HD constexpr int num_groups() const {
    return is_direct() ? topology.num_ranks : topology.num_nodes;
  }
  MOELINK_HD constexpr int group_size() const {
    return is_direct() ? 1 : topology.ranks_per_node();
  }
  MOELINK_HD constexpr int group_of(Rank rank) const { return rank.value() / group_size(); }
  MOELINK_HD constexpr Rank first_rank(int group) const { return Rank(group * group_size()); }

  // Whether `rank` reaches the group over the network.
  MOELINK_HD constexpr bool is_far(int group, Rank rank) const {
    return topology.node_of(first_rank(group)) != topology.node_of(rank);
  }
  // The rank of the group to which `source` sends, and which sends back to it.
  MOELINK_HD constexpr Rank carrier(int group, Rank source) const {
    if (is_direct()) return first_rank(group);
    return topology.rank_at(Node(group), topology.local_rank_of(source));
  }
  // Whether `self` is the carrier of `source` for its own group.
  MOELINK_HD constexpr bool carries(Rank self, Rank source) const {
    const int group = group_of(self);
    return is_far(group, source) && carrier(group, source) == self;
  }

 private:
  MOELINK_HD constexpr bool is_direct() const { return path == NetworkPath::kDirect; }
};

}  // namespace moelink
