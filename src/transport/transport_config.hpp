// What a transport is opened with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "moelink/types.hpp"

namespace moelink {

// The ranks that a transport connects, and what it needs of them while it opens.
struct TransportGroup {
  Rank rank;
  int num_ranks = 0;
  // Collective: the blobs of all ranks in rank order, as a bootstrap gathers them.
  std::function<std::vector<std::string>(const std::string& blob, const char* what,
                                         const Deadline& deadline)>
      all_gather;
  // Whether a peer still lives, if anybody knows better than the network; may be null.
  std::function<bool(Rank)> peer_alive;
};

struct TransportConfig {
  // Counters per source and lane of epochs, and the number of lanes (a power of two): see
  // protocol/arrival.hpp. The same at all ranks.
  std::uint32_t num_counters = 64;
  std::uint32_t num_epoch_lanes = 4;
  int max_outstanding = 512;  // puts that may be under way; further ones are refused for a while
  int max_regions = 256;      // that may be registered here at one time
  // libfabric: the provider, such as "verbs"; empty: the best one that all ranks have.
  std::string provider;
  int max_nics = 1;           // to stripe over, at most kMaxNics
  int endpoints_per_nic = 1;  // each carries its share of a striped put; tcp gains from several
  std::size_t min_stripe_bytes = std::size_t{1} << 18;  // a smaller put goes through one NIC
  // PCI address of the device whose NICs are preferred, such as "0000:1b:00.0"; empty: any.
  std::string near_pci;
};

}  // namespace moelink
