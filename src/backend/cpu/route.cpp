// route, count and place: the protocol's rules applied to the tokens of this rank.
#include "backend/cpu/route.hpp"

#include <algorithm>

#include "backend/call_agreement.hpp"
#include "protocol/placement.hpp"

namespace moelink {
namespace {

// Marks the destinations of one token and counts its selections.
void route_token(const TopkList& topk, std::int64_t token, const std::uint8_t* mask_row, Rank rank,
                 RoutingState& state, std::int32_t* counts) {
  const ExpertMap map = state.expert_map();
  const auto num_ranks = static_cast<std::size_t>(state.num_ranks);
  auto* const destinations =
      state.is_token_in_rank.view.as<std::uint8_t>() + static_cast<std::size_t>(token) * num_ranks;
  std::int32_t* const owners = state.topk_owner.data() + token * state.num_topk;
  for (int k = 0; k < state.num_topk; ++k) {
    const std::int64_t id = topk.at(token, k);
    check_id(map, id, token, k, rank);
    owners[k] = -1;
    if (id == kNoExpert) continue;
    const Expert expert(static_cast<std::int32_t>(id));
    const Rank owner = map.owner(expert);
    if (mask_row != nullptr && mask_row[owner.index()] == 0) continue;
    owners[k] = owner.value();
    ++counts[num_ranks + expert.index()];
    destinations[owner.index()] = 1;
  }
  for (std::size_t rank_idx = 0; rank_idx < num_ranks; ++rank_idx) {
    if (mask_row != nullptr) destinations[rank_idx] = mask_row[rank_idx] != 0 ? 1 : 0;
    counts[rank_idx] += destinations[rank_idx];
  }
}

}  // namespace

TopkList::TopkList(const TensorView& topk_idx) : view_(topk_idx) {
  static std::int64_t no_element = 0;
  if (view_.ndim > 0 && view_.data == nullptr) view_.data = &no_element;  // zero tokens
}

void check_id(const ExpertMap& map, std::int64_t id, std::int64_t token, int k, Rank rank) {
  if (map.is_valid(id)) return;
  fail_bad_selection(token, k, id, rank, map.num_experts);
}

std::vector<std::int32_t> route_tokens(const TopkList& topk, const std::uint8_t* mask, Rank rank,
                                       RoutingState& state) {
  state.is_token_in_rank = make_host_tensor(DType::kBool, {state.num_tokens, state.num_ranks});
  state.topk_owner.resize(static_cast<std::size_t>(state.num_tokens * state.num_topk));
  std::vector<std::int32_t> counts(CountMatrix::row_length(state.num_ranks, state.num_experts));
  for (std::int64_t token = 0; token < state.num_tokens; ++token) {
    const std::uint8_t* mask_row = mask == nullptr ? nullptr : mask + token * state.num_ranks;
    route_token(topk, token, mask_row, rank, state, counts.data());
  }
  return counts;
}

void leave_out_ranks(const std::vector<bool>& present, RoutingState& state) {
  if (std::ranges::find(present, false) == present.end()) return;
  auto* const sent = state.is_token_in_rank.view.as<std::uint8_t>();
  for (std::int64_t i = 0; i < state.is_token_in_rank.view.num_elements(); ++i) {
    if (!present[static_cast<std::size_t>(i % state.num_ranks)]) sent[i] = 0;
  }
  for (std::int32_t& owner : state.topk_owner) {
    if (owner >= 0 && !present[static_cast<std::size_t>(owner)]) owner = -1;
  }
}

void place_tokens(const TopkList& topk, Rank rank, RoutingState& state) {
  const CountMatrix counts = state.count_matrix();
  const auto num_ranks = static_cast<std::size_t>(state.num_ranks);
  std::vector<std::int32_t> next_row(num_ranks);
  for (Rank peer(0); peer.value() < state.num_ranks; peer = peer.next()) {
    next_row[peer.index()] = static_cast<std::int32_t>(compact_start(counts, rank, peer).value());
  }
  const auto* const sent = state.is_token_in_rank.view.as<std::uint8_t>();
  state.send_row.resize(static_cast<std::size_t>(state.num_tokens) * num_ranks);
  for (std::size_t i = 0; i < state.send_row.size(); ++i) {
    state.send_row[i] =
        sent[i] != 0 ? next_row[i % num_ranks]++ : static_cast<std::int32_t>(kNoRow);
  }
  if (state.layout == Layout::kCompact) return;

  const ExpertMap map = state.expert_map();
  std::vector<std::int64_t> next_of_expert(static_cast<std::size_t>(state.num_experts));
  for (Rank peer(0); peer.value() < state.num_ranks; peer = peer.next()) {
    std::int64_t* starts = next_of_expert.data() + map.global(peer, LocalExpert(0)).index();
    expert_group_starts(counts, map, peer, state.expert_alignment, starts);
  }
  for (Expert expert(0); expert.value() < state.num_experts; expert = expert.next()) {
    next_of_expert[expert.index()] += counts.selections_before(rank, expert);
  }
  state.expert_row.resize(state.topk_owner.size());
  for (std::size_t i = 0; i < state.expert_row.size(); ++i) {
    const auto num_topk = static_cast<std::size_t>(state.num_topk);
    const std::int64_t id =
        topk.at(static_cast<std::int64_t>(i / num_topk), static_cast<int>(i % num_topk));
    state.expert_row[i] = static_cast<std::int32_t>(
        state.topk_owner[i] < 0 ? kNoRow : next_of_expert[static_cast<std::size_t>(id)]++);
  }
}

void plan_receive(Rank rank, RoutingState& state) {
  const CountMatrix counts = state.count_matrix();
  const ExpertMap map = state.expert_map();
  state.num_recv_tokens = counts.num_tokens(rank);
  state.num_recv_rows = state.max_rows > 0 ? state.max_rows
                                           : num_receive_rows(counts, map, rank, state.layout,
                                                              state.expert_alignment);
  const std::int64_t num_ranks = state.num_ranks;
  state.rank_prefix_matrix = make_host_tensor(DType::kInt32, {num_ranks, num_ranks});
  auto* prefix = state.rank_prefix_matrix.view.as<std::int32_t>();
  for (Rank source(0); source.value() < num_ranks; source = source.next()) {
    for (Rank destination(0); destination.value() < num_ranks; destination = destination.next()) {
      *prefix++ = static_cast<std::int32_t>(counts.tokens_before(source.next(), destination));
    }
  }
  const bool has_experts = state.num_topk > 0;
  state.recv_tokens_per_expert =
      make_host_tensor(DType::kInt32, {has_experts ? map.experts_per_rank : 0});
  auto* per_expert = state.recv_tokens_per_expert.view.as<std::int32_t>();
  for (LocalExpert local(0); has_experts && local.value() < map.experts_per_rank;
       local = local.next()) {
    *per_expert++ = static_cast<std::int32_t>(counts.num_selections(map.global(rank, local)));
  }
}

LayoutResult query_layout(const TopkList& topk, int num_experts, const Topology& topology,
                          Rank rank) {
  RoutingState state;
  state.num_ranks = topology.num_ranks;
  state.num_experts = num_experts;
  state.num_tokens = topk.num_tokens();
  state.num_topk = topk.num_topk();
  const std::vector<std::int32_t> counts = route_tokens(topk, nullptr, rank, state);

  LayoutResult result;
  result.num_tokens_per_rank = make_host_tensor(DType::kInt32, {topology.num_ranks});
  result.num_tokens_per_expert = make_host_tensor(DType::kInt32, {num_experts});
  result.num_tokens_per_node = make_host_tensor(DType::kInt32, {topology.num_nodes});
  const auto first_expert = counts.begin() + topology.num_ranks;
  std::copy(counts.begin(), first_expert, result.num_tokens_per_rank.view.as<std::int32_t>());
  std::copy(first_expert, counts.end(), result.num_tokens_per_expert.view.as<std::int32_t>());

  const auto* in_rank = state.is_token_in_rank.view.as<std::uint8_t>();
  auto* per_node = result.num_tokens_per_node.view.as<std::int32_t>();
  for (std::int64_t token = 0; token < state.num_tokens; ++token) {
    for (int node = 0; node < topology.num_nodes; ++node, in_rank += topology.ranks_per_node()) {
      const bool in_node = std::any_of(in_rank, in_rank + topology.ranks_per_node(),
                                       [](std::uint8_t sent) { return sent != 0; });
      per_node[node] += in_node ? 1 : 0;
    }
  }
  result.is_token_in_rank = state.is_token_in_rank;
  return result;
}

}  // namespace moelink
