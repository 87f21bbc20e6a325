// Where the tokens of a low latency call go: their selections by rank, looked up once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/cpu/route.hpp"
#include "protocol/expert_map.hpp"

namespace moelink {

class TokenRoutes {
 public:
  struct Selection {
    std::int32_t rank = -1;          // that holds the expert; -1 = nothing is selected
    std::int32_t local = kNoExpert;  // the expert's number there
    bool is_first = false;           // of the token's selections that lead to that rank

    bool leads_to(Rank other) const { return rank == other.value(); }
  };

  TokenRoutes() = default;
  // Throws Error(kInvalidArgument) naming the first id that is out of range.
  TokenRoutes(const TopkList& topk, const ExpertMap& map, Rank rank);

  // Of each k.
  std::span<const Selection> of(std::int64_t token) const {
    return {selections_.data() + static_cast<std::size_t>(token) * num_topk_, num_topk_};
  }
  std::span<const Selection> all() const { return selections_; }

 private:
  std::size_t num_topk_ = 0;
  std::vector<Selection> selections_;
};

}  // namespace moelink
