// Finds the rows of tokens that are forwarded, as their source would.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/routing_state.hpp"
#include "protocol/relay_plan.hpp"

namespace moelink {

// Tokens of this rank that go to a group, ascending.
std::vector<std::int32_t> tokens_to_group(const RoutingState& state, const RelayPlan& plan,
                                          int group);

class RelayPlacer {
 public:
  // Of tokens from `source` to the ranks of a group, which come in the order of their numbers.
  RelayPlacer(const RoutingState& state, const RelayPlan& plan, int group, Rank source);

  // `destinations`: a bit for each rank of the group; `ids`: [K] experts, kNoExpert where none is
  // sent. Appends to `out`.
  void place(std::int32_t token, const std::uint32_t* destinations, const std::int32_t* ids,
             RelayedTokens& out);

 private:
  void place_selections(const std::uint32_t* destinations, const std::int32_t* ids,
                        RelayedTokens& out);

  const RoutingState& state_;
  Rank first_rank_;
  int group_size_;
  std::vector<std::int32_t> next_row_;        // by rank of the group
  std::vector<std::int64_t> next_of_expert_;  // by expert of the group; expert-major only
};

}  // namespace moelink
