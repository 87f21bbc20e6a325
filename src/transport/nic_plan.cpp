// Sorts cards by distance.
#include "transport/nic_plan.hpp"

#include <algorithm>
#include <limits>

namespace moelink {

namespace {

constexpr int kNoCommonBridge = 1000;
constexpr int kUnknownPlace = 2000;

std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    if (end > 0) parts.push_back(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return parts;
}

bool stays_on_machine(const NicPlace& nic) {
  return nic.domain == "lo" || nic.fabric.starts_with("fe80:") || nic.fabric.starts_with("127.");
}

// The smaller, the better.
int reach_of(const NicPlace& nic) {
  constexpr int kMachine = static_cast<int>(NetworkReach::kOwnHost) + 1;
  return stays_on_machine(nic) ? kMachine : static_cast<int>(nic.reach);
}

// The first of each card, of those with the best reach.
std::vector<std::size_t> distinct_nics(const std::vector<NicPlace>& nics) {
  int best = std::numeric_limits<int>::max();
  for (const NicPlace& nic : nics) best = std::min(best, reach_of(nic));
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < nics.size(); ++i) {
    if (reach_of(nics[i]) != best) continue;
    const bool known = std::any_of(chosen.begin(), chosen.end(), [&](std::size_t other) {
      return nics[other].domain == nics[i].domain;
    });
    if (!known) chosen.push_back(i);
  }
  return chosen;
}

int distance_to(const NicPlace& nic, const NicWish& wish) {
  if (wish.near_path.empty()) return 0;
  if (nic.device_path.empty()) return kUnknownPlace;
  return device_distance(nic.device_path, wish.near_path);
}

}  // namespace

int device_distance(std::string_view a, std::string_view b) {
  const std::vector<std::string_view> first = parts_of(a);
  const std::vector<std::string_view> second = parts_of(b);
  const std::size_t shorter = std::min(first.size(), second.size());
  std::size_t num_common = 0;
  while (num_common < shorter && first[num_common] == second[num_common]) ++num_common;
  const auto steps = static_cast<int>(first.size() + second.size() - 2 * num_common);
  return num_common == 0 && steps > 0 ? kNoCommonBridge + steps : steps;
}

std::vector<std::size_t> plan_nics(const std::vector<NicPlace>& nics, const NicWish& wish) {
  std::vector<std::size_t> order = distinct_nics(nics);
  const auto distance = [&](std::size_t i) { return distance_to(nics[i], wish); };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return distance(a) < distance(b); });
  const auto num_nearest = std::count_if(order.begin(), order.end(), [&](std::size_t i) {
    return distance(i) == distance(order.front()) && !nics[i].device_path.empty();
  });
  if (num_nearest > 1) {
    const auto shift =
        static_cast<std::ptrdiff_t>(wish.turn % static_cast<std::size_t>(num_nearest));
    std::rotate(order.begin(), order.begin() + shift, order.begin() + num_nearest);
  }
  order.resize(std::min(order.size(), wish.max_nics));
  return order;
}

}  // namespace moelink
