// Which networks of a rank lead to the other ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moelink {

// The better, the smaller.
enum class NetworkReach : std::uint8_t {
  kAllRanks,   // all ranks list it
  kSomeRanks,  // routers may join it with those of the other ranks
  kOwnHost,    // two hosts have the same address in it: each has such a network for itself
};

// What a rank tells the others. Words without spaces; none is empty.
struct RankNetworks {
  struct Entry {
    std::string provider;
    std::string network;
    std::string address;  // in any form that is equal for equal addresses; "-" if not known
  };

  std::string host;  // equal at ranks of one host only
  std::vector<Entry> entries;
};

std::string encode_networks(const RankNetworks& networks);
// Nothing if the text cannot be read.
std::optional<RankNetworks> decode_networks(const std::string& text);

// Containers of one host, for instance, share a network that hosts know by the same name and
// address everywhere, and that may seem faster than those that lead to other hosts.
NetworkReach reach_of_network(const std::vector<RankNetworks>& ranks, std::string_view provider,
                              std::string_view network);

}  // namespace moelink
