// The symmetric memory of one node, seen by the ranks of a group that has several nodes.
#pragma once

#include <memory>

#include "moelink/topology.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink {

// Collective over all ranks of `bootstrap`; each node opens memory of its own. Ranks are those of
// the whole group: region() of a rank of another node is null, its peer_alive() always true. Throws
// as open_symmetric_memory.
std::shared_ptr<SymmetricMemory> open_node_memory(Bootstrap& bootstrap, const Topology& topology,
                                                  std::size_t size_bytes, const Deadline& deadline);

}  // namespace moelink
