// Whether the ranks have made the same collective call, and what to say if not.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moelink/config.hpp"
#include "moelink/trace.hpp"
#include "moelink/types.hpp"
#include "protocol/control_layout.hpp"

namespace moelink {

// `blocks` is in rank order; those of ranks that are not present do not count. Throws
// Error(kInvalidArgument) naming each argument that differs, its values and ranks. The lowest
// rank's call is the yardstick, so that all ranks find the same differences.
void check_same_call(std::span<const ExchangeBlock> blocks, const std::vector<bool>& present,
                     Operation operation, Rank self);

// Throws Error(kInvalidArgument) if a rank has found a selection that is no expert.
void check_selections(std::span<const ExchangeBlock> blocks, int num_topk, int num_experts);

[[noreturn]] void fail_bad_selection(std::int64_t token, int k, std::int64_t id, Rank rank,
                                     int num_experts);

}  // namespace moelink
