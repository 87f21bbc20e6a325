// The division of ids into ranks and local experts.
#include "backend/cpu/low_latency/token_routes.hpp"

#include <algorithm>

namespace moelink {

TokenRoutes::TokenRoutes(const TopkList& topk, const ExpertMap& map, Rank rank)
    : num_topk_(static_cast<std::size_t>(topk.num_topk())),
      selections_(static_cast<std::size_t>(topk.num_tokens()) * num_topk_) {
  Selection* selection = selections_.data();
  for (std::int64_t token = 0; token < topk.num_tokens(); ++token) {
    Selection* const first = selection;
    for (int k = 0; k < topk.num_topk(); ++k, ++selection) {
      const std::int64_t id = topk.at(token, k);
      check_id(map, id, token, k, rank);
      if (id == kNoExpert) continue;
      const Expert expert(static_cast<std::int32_t>(id));
      const Rank owner = map.owner(expert);
      selection->rank = owner.value();
      selection->local = map.local(expert).value();
      selection->is_first = std::none_of(
          first, selection, [owner](const Selection& earlier) { return earlier.leads_to(owner); });
    }
  }
}

}  // namespace moelink
