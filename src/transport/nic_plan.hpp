// Which network cards a rank uses.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "transport/network_reach.hpp"

namespace moelink {

// A card as a provider reports it.
struct NicPlace {
  std::string domain;  // "mlx5_0", "eth0"
  std::string fabric;  // the network behind it
  // Its place in the tree of devices, as in /sys/devices: "pci0000:00/0000:00:01.0/0000:01:00.0".
  // Empty if it has none.
  std::string device_path;
  std::string address = {};  // as in RankNetworks
  NetworkReach reach = NetworkReach::kAllRanks;
};

struct NicWish {
  std::string near_path;     // of the device to be near to; empty: any
  std::size_t max_nics = 1;  // to choose
  std::size_t turn = 0;      // spreads ranks over cards that are equally near
};

// Steps from one device to the other over their nearest common bridge; host bridges are joined by
// the CPU. Two different paths without a common part are farther apart than any others.
int device_distance(std::string_view a, std::string_view b);

// Positions in `nics` of the cards to use, the best first; at least one unless there are none. A
// card that several networks list is used once. Only the networks with the best reach that there is
// count; those of the machine itself (loopback, link-local) have the worst. Only cards with a place
// are spread over ranks, as others may reach different peers.
std::vector<std::size_t> plan_nics(const std::vector<NicPlace>& nics, const NicWish& wish);

}  // namespace moelink
