// Which peers this rank leaves out.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "moelink/errors.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Local state: each rank masks for itself. Thread-safe.
class RankMasks {
 public:
  explicit RankMasks(int num_ranks) : masked_(static_cast<std::size_t>(num_ranks)) {}

  bool is_masked(Rank rank) const {
    return masked_[rank.index()].load(std::memory_order_relaxed) != 0;
  }
  bool any() const {
    return std::ranges::any_of(
        masked_, [](const auto& masked) { return masked.load(std::memory_order_relaxed) != 0; });
  }
  void mask(Rank rank) { masked_[rank.index()].store(1, std::memory_order_relaxed); }
  void unmask(Rank rank) { masked_[rank.index()].store(0, std::memory_order_relaxed); }

 private:
  std::vector<std::atomic<std::uint8_t>> masked_;
};

// Masks `peer`, which `self` has lost for this reason, and logs it.
void mask_lost(RankMasks& masks, Rank self, Rank peer, const Error& reason);

}  // namespace moelink
