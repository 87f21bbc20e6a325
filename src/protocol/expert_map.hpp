// Which rank holds an expert, and what an expert is called there.
#pragma once

#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Experts are dealt to ranks in equal consecutive blocks.
struct ExpertMap {
  int num_experts = 0;
  int experts_per_rank = 1;

  MOELINK_HD static constexpr ExpertMap make(int num_experts, int num_ranks) {
    return ExpertMap{num_experts, num_experts / num_ranks};
  }

  MOELINK_HD constexpr Rank owner(Expert expert) const {
    return Rank(expert.value() / experts_per_rank);
  }
  MOELINK_HD constexpr LocalExpert local(Expert expert) const {
    return LocalExpert(expert.value() % experts_per_rank);
  }
  MOELINK_HD constexpr Expert global(Rank owner, LocalExpert local) const {
    return Expert(owner.value() * experts_per_rank + local.value());
  }
  MOELINK_HD constexpr bool is_valid(std::int64_t id) const {
    return id >= kNoExpert && id < num_experts;
  }
};

// True if selection `k` of a token is the first of its list that leads to its rank: the one for
// which the token is sent. `id_at(k)` gives the token's global ids, kNoExpert where nothing is
// selected.
template <class IdAt>
MOELINK_HD constexpr bool is_first_for_rank(const ExpertMap& map, const IdAt& id_at, int k) {
  if (id_at(k) == kNoExpert) return false;
  const Rank owner = map.owner(Expert(static_cast<std::int32_t>(id_at(k))));
  for (int earlier = 0; earlier < k; ++earlier) {
    if (id_at(earlier) == kNoExpert) continue;
    if (map.owner(Expert(static_cast<std::int32_t>(id_at(earlier)))) == owner) return false;
  }
  return true;
}

// The id that the receiver sees: local to `owner`, or kNoExpert if the expert lives elsewhere.
template <class Index>
MOELINK_HD constexpr Index localize(const ExpertMap& map, Index id, Rank owner) {
  if (id == kNoExpert) return kNoExpert;
  const Expert expert(static_cast<std::int32_t>(id));
  return map.owner(expert) == owner ? static_cast<Index>(map.local(expert).value())
                                    : static_cast<Index>(kNoExpert);
}

}  // namespace moelink
