// Chooses pairs, then fills one round after the other.
#include "api/network_pairs.hpp"

#include <algorithm>
#include <unordered_set>

namespace moelink {

namespace {

// How many earlier ranks live on the same host.
std::vector<int> places_on_host(const std::vector<int>& hosts) {
  std::vector<int> places;
  for (auto at = hosts.begin(); at != hosts.end(); ++at) {
    places.push_back(static_cast<int>(std::count(hosts.begin(), at, *at)));
  }
  return places;
}

bool are_on_one_host(const std::vector<int>& hosts) {
  return std::ranges::all_of(hosts, [&](int host) { return host == hosts.front(); });
}

std::vector<RankPair> choose_pairs(const std::vector<int>& hosts, NetworkPairs wish) {
  const bool takes_all = wish == NetworkPairs::kAll || are_on_one_host(hosts);
  const std::vector<int> places = places_on_host(hosts);
  std::vector<RankPair> pairs;
  for (std::size_t lower = 0; lower < hosts.size(); ++lower) {
    for (std::size_t higher = lower + 1; higher < hosts.size(); ++higher) {
      const bool crosses = hosts[lower] != hosts[higher];
      const bool is_rail = crosses && places[lower] == places[higher];
      if (takes_all || (wish == NetworkPairs::kRails ? is_rail : crosses)) {
        pairs.push_back(
            {Rank(static_cast<std::int32_t>(lower)), Rank(static_cast<std::int32_t>(higher))});
      }
    }
  }
  return pairs;
}

}  // namespace

std::vector<std::vector<RankPair>> plan_pairs(const std::vector<int>& hosts, NetworkPairs wish) {
  std::vector<RankPair> waiting = choose_pairs(hosts, wish);
  std::vector<std::vector<RankPair>> rounds;
  while (!waiting.empty()) {
    std::vector<RankPair>& round = rounds.emplace_back();
    std::unordered_set<int> busy;
    std::erase_if(waiting, [&](const RankPair& pair) {
      const int first = hosts[pair.lower.index()];
      const int second = hosts[pair.higher.index()];
      if (busy.contains(first) || busy.contains(second)) return false;
      busy.insert({first, second});
      round.push_back(pair);
      return true;
    });
  }
  return rounds;
}

}  // namespace moelink
