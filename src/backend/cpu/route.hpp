// Routing on the CPU: destinations and counts of this rank's tokens, and their final rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/routing_state.hpp"
#include "moelink/config.hpp"
#include "moelink/results.hpp"
#include "moelink/topology.hpp"
#include "protocol/expert_map.hpp"

namespace moelink {

// The top-k list of a call, whatever its integer type. Empty when the call has none.
class TopkList {
 public:
  TopkList() = default;
  explicit TopkList(const TensorView& topk_idx);  // int32 or int64 [T, K], contiguous

  bool empty() const { return view_.data == nullptr; }
  std::int64_t num_tokens() const { return view_.shape[0]; }
  int num_topk() const { return static_cast<int>(view_.shape[1]); }
  std::int64_t at(std::int64_t token, int k) const {
    const std::int64_t i = token * view_.shape[1] + k;
    return view_.dtype == DType::kInt64 ? view_.as<std::int64_t>()[i]
                                        : std::int64_t{view_.as<std::int32_t>()[i]};
  }

 private:
  TensorView view_;
};

// Throws Error(kInvalidArgument) unless `id`, of selection k of `token`, is an expert or kNoExpert.
void check_id(const ExpertMap& map, std::int64_t id, std::int64_t token, int k, Rank rank);

// Fills is_token_in_rank and topk_owner of `state` (whose sizes are set) and returns this rank's
// row of the count matrix. `mask`: is_token_in_rank of the call, may be null; a selection whose
// rank the mask excludes is not sent and not counted.
// Throws Error(kInvalidArgument) naming the first id that is out of range.
std::vector<std::int32_t> route_tokens(const TopkList& topk, const std::uint8_t* mask, Rank rank,
                                       RoutingState& state);

// Takes back the tokens that route_tokens meant for ranks which are not present.
void leave_out_ranks(const std::vector<bool>& present, RoutingState& state);

// Fills send_row and expert_row from the count matrix.
void place_tokens(const TopkList& topk, Rank rank, RoutingState& state);

// Fills what the receiving side knows from the count matrix: sizes, prefix matrix, expert counts.
void plan_receive(Rank rank, RoutingState& state);

LayoutResult query_layout(const TopkList& topk, int num_experts, const Topology& topology,
                          Rank rank);

}  // namespace moelink
