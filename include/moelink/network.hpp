// Measures the network between the ranks of a group: who reaches whom, and how fast.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "moelink/group.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Which pairs of ranks are measured.
enum class NetworkPairs : std::uint8_t {
  kHosts,  // ranks of different hosts; all pairs if the ranks share one host
  kRails,  // of these, only the n-th rank of one host with the n-th of another
  kAll,
};

// The same at all ranks, but for near_pci.
struct NetworkCheck {
  NetworkPairs pairs = NetworkPairs::kHosts;
  // "libfabric", or "loopback" between threads of one process; empty: MOELINK_NETWORK, and where
  // that leaves the choice, loopback between threads and libfabric otherwise.
  std::string transport{};
  std::string provider{};  // of libfabric; empty: MOELINK_FABRIC_PROVIDER, else the best
  int max_nics = 0;        // that one rank uses at a time; 0: MOELINK_NICS
  std::string near_pci{};  // PCI address of the device whose cards are preferred; empty: any
  // Longest time for one pair, and for finding out who is reached at all. At most half of the
  // group's counts, so that the others still wait for those who found nobody.
  std::chrono::milliseconds timeout{10'000};
};

// One direction between two ranks. What was not measured is 0.
struct NetworkLink {
  Rank source;
  Rank target;
  double small_put_us = 0;  // 8 bytes, half of the round trip, so equal in both directions
  double row_put_us = 0;    // 7168 bytes, likewise
  double gb_per_s = 0;      // puts of 1 MiB from source to target, 1e9 bytes per second
  std::uint64_t num_wrong_bytes = 0;  // at the target, among all that came from the source
  std::string problem{};              // why it was not measured; empty if it was
};

struct NetworkRank {
  std::string host_name{};
  int host = 0;             // number of its host: ranks of one host have the same one
  std::string transport{};  // "libfabric tcp;ofi_rxm over eth0"
};

struct NetworkReport {
  std::vector<NetworkRank> ranks;  // by rank
  std::vector<NetworkLink> links;  // ordered by source, then by target; both directions of a pair
};

// Collective; all ranks get the same report. A peer that cannot be reached, or is lost from the
// network, is a `problem` of its links, and the others go on. Throws Error(kUnsupported) without a
// network that all ranks have, Error(kInvalidArgument) for options that are wrong or differ between
// ranks, Error(kPeerLost) or Error(kTimeout) naming the rank that has left the group.
NetworkReport measure_network(const Group& group, const NetworkCheck& check = {});

}  // namespace moelink
