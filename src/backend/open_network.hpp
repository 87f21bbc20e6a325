// Connects the ranks of several nodes.
#pragma once

#include <memory>

#include "base/deadline.hpp"
#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "network/network.hpp"

namespace moelink {

// What the environment asks for: "auto", "libfabric", "loopback" or "memory", as a number that
// ranks can compare.
std::int64_t wished_network();

// Of the configuration, else of the environment; never kAuto.
NetworkPath choose_network_path(const BufferConfig& config);

// Whether traffic between the nodes takes a network: not if there is one node, and not if nodes are
// emulated and asked to share memory.
bool uses_network(const Topology& topology);

// Collective. How many of the ranks share this host, and its cores.
int count_ranks_on_host(const Group& group, const Deadline& deadline);

// Collective. Over loopback if all ranks are threads of this process and nothing else is asked for,
// else over libfabric. `path`: the same at all ranks. Throws Error(kUnsupported) at all ranks if
// there is no way between them.
std::unique_ptr<Network> open_network(const Group& group, NetworkPath path, int max_num_experts,
                                      const Deadline& deadline);

}  // namespace moelink
