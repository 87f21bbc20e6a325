// What libfabric can reach from this process.
#pragma once

#include <string>
#include <vector>

#include "transport/libfabric/fabric_owners.hpp"
#include "transport/nic_plan.hpp"

namespace moelink {

// A provider that can do puts with immediates between reliable, unconnected endpoints.
struct FabricCandidate {
  std::string provider;  // base name
  bool hmem = false;     // answered a request for FI_HMEM
  std::vector<NicPlace> nics;
  std::vector<std::shared_ptr<fi_info>> infos;  // of each of `nics`
};

// In the order of kProviders; only those in it.
std::vector<FabricCandidate> discover_fabric();

// What the other ranks need to tell which networks lead here.
RankNetworks networks_of(const std::vector<FabricCandidate>& candidates);
// Fills in the reach of each card, from what all ranks have told.
void compare_networks(FabricCandidate& candidate, const std::vector<RankNetworks>& ranks);

// In /sys/devices, such as "pci0000:00/0000:00:01.0"; empty if there is no such device.
std::string device_path_of(const std::string& pci_address);

}  // namespace moelink
