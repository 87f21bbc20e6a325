// The order in which combine adds the rows of a token, and where it rounds.
#pragma once

#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/topology.hpp"
#include "moelink/types.hpp"

namespace moelink {

// One row of a token's sum: where it lies and how many levels end behind it. Addends are listed by
// node, rank and k ascending. Levels from the inside: the rows of one rank, the ranks of one node,
// the nodes. Each level that has ended is rounded to the element type before it joins the next.
struct Pull {
  Rank rank;
  std::uint32_t closes = 0;
  Row row;
};

// Sets `closes` of the `count` pulls of one token, ordered as said above. Levels in which no group
// has two members are left out: rounding a single exact value changes nothing.
MOELINK_HD constexpr void close_levels(const Topology& topology, Pull* pulls, int count) {
  bool rank_level = false;
  bool node_level = false;
  for (int i = 1; i < count; ++i) {
    const bool same_rank = pulls[i].rank == pulls[i - 1].rank;
    const bool same_node = topology.node_of(pulls[i].rank) == topology.node_of(pulls[i - 1].rank);
    rank_level = rank_level || same_rank;
    node_level = node_level || (same_node && !same_rank && topology.num_nodes > 1);
  }
  for (int i = 0; i < count; ++i) {
    const bool last = i + 1 == count;
    const bool ends_rank = last || pulls[i + 1].rank != pulls[i].rank;
    const bool ends_node =
        last || topology.node_of(pulls[i + 1].rank) != topology.node_of(pulls[i].rank);
    pulls[i].closes = (rank_level && ends_rank ? 1U : 0U) + (node_level && ends_node ? 1U : 0U);
  }
}

}  // namespace moelink
