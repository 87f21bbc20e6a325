// Counts on from where the count matrix puts the source's first token.
#include "backend/cpu/network/relay_placer.hpp"

#include "protocol/placement.hpp"

namespace moelink {
namespace {

bool has_bit(const std::uint32_t* words, int bit) { return (words[bit / 32] >> bit % 32 & 1) != 0; }

}  // namespace

std::vector<std::int32_t> tokens_to_group(const RoutingState& state, const RelayPlan& plan,
                                          int group) {
  std::vector<std::int32_t> tokens;
  const Placement placement = state.placement();
  for (std::int32_t token = 0; token < state.num_tokens; ++token) {
    for (int i = 0; i < plan.group_size(); ++i) {
      if (placement.row_at(token, Rank(plan.first_rank(group).value() + i)) == kNoRow) continue;
      tokens.push_back(token);
      break;
    }
  }
  return tokens;
}

RelayPlacer::RelayPlacer(const RoutingState& state, const RelayPlan& plan, int group, Rank source)
    : state_(state), first_rank_(plan.first_rank(group)), group_size_(plan.group_size()) {
  const CountMatrix counts = state.count_matrix();
  const ExpertMap map = state.expert_map();
  for (int i = 0; i < group_size_; ++i) {
    const Rank rank(first_rank_.value() + i);
    next_row_.push_back(static_cast<std::int32_t>(compact_start(counts, source, rank).value()));
    if (state.layout == Layout::kCompact) continue;
    std::vector<std::int64_t> starts(static_cast<std::size_t>(map.experts_per_rank));
    expert_group_starts(counts, map, rank, state.expert_alignment, starts.data());
    for (LocalExpert local(0); local.value() < map.experts_per_rank; local = local.next()) {
      next_of_expert_.push_back(starts[local.index()] +
                                counts.selections_before(source, map.global(rank, local)));
    }
  }
}

void RelayPlacer::place(std::int32_t token, const std::uint32_t* destinations,
                        const std::int32_t* ids, RelayedTokens& out) {
  out.tokens.push_back(token);
  const std::size_t first = out.send_row.size();
  out.send_row.resize(first + static_cast<std::size_t>(state_.num_ranks),
                      static_cast<std::int32_t>(kNoRow));
  for (int i = 0; i < group_size_; ++i) {
    if (!has_bit(destinations, i)) continue;
    out.send_row[first + first_rank_.index() + static_cast<std::size_t>(i)] =
        next_row_[static_cast<std::size_t>(i)]++;
  }
  place_selections(destinations, ids, out);
}

void RelayPlacer::place_selections(const std::uint32_t* destinations, const std::int32_t* ids,
                                   RelayedTokens& out) {
  const ExpertMap map = state_.expert_map();
  for (int k = 0; k < state_.num_topk; ++k) {
    const int rank = ids[k] == kNoExpert ? -1 : map.owner(Expert(ids[k])).value();
    const int inside = rank - first_rank_.value();
    const bool is_sent =
        rank >= 0 && inside >= 0 && inside < group_size_ && has_bit(destinations, inside);
    out.topk_owner.push_back(is_sent ? rank : -1);
    if (state_.layout == Layout::kCompact) continue;
    if (!is_sent) {
      out.expert_row.push_back(static_cast<std::int32_t>(kNoRow));
      continue;
    }
    const int in_group = ids[k] - map.global(first_rank_, LocalExpert(0)).value();
    out.expert_row.push_back(
        static_cast<std::int32_t>(next_of_expert_[static_cast<std::size_t>(in_group)]++));
  }
}

}  // namespace moelink
