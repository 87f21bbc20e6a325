// Compares what the ranks list.
#include "transport/network_reach.hpp"

#include <algorithm>
#include <map>
#include <sstream>

namespace moelink {

std::string encode_networks(const RankNetworks& networks) {
  std::string text = networks.host;
  for (const RankNetworks::Entry& entry : networks.entries) {
    text += " " + entry.provider + " " + entry.network + " " + entry.address;
  }
  return text;
}

std::optional<RankNetworks> decode_networks(const std::string& text) {
  std::istringstream words(text);
  RankNetworks networks;
  if (!(words >> networks.host)) return std::nullopt;
  RankNetworks::Entry entry;
  while (words >> entry.provider) {
    if (!(words >> entry.network >> entry.address)) return std::nullopt;
    networks.entries.push_back(entry);
  }
  return networks;
}

NetworkReach reach_of_network(const std::vector<RankNetworks>& ranks, std::string_view provider,
                              std::string_view network) {
  bool all_list_it = true;
  std::map<std::string, std::string> host_of_address;
  for (const RankNetworks& rank : ranks) {
    bool lists_it = false;
    for (const RankNetworks::Entry& entry : rank.entries) {
      if (entry.provider != provider || entry.network != network) continue;
      lists_it = true;
      if (entry.address == "-") continue;
      const auto known = host_of_address.emplace(entry.address, rank.host).first;
      if (known->second != rank.host) return NetworkReach::kOwnHost;
    }
    all_list_it = all_list_it && lists_it;
  }
  return all_list_it ? NetworkReach::kAllRanks : NetworkReach::kSomeRanks;
}

}  // namespace moelink
