// The count matrix that ranks exchange before any token moves.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/types.hpp"
#include "protocol/limits.hpp"

namespace moelink {

// One row per source rank: int32 tokens sent to each rank [R], then selections of each expert [E].
// A row is what one rank publishes; all ranks end up with the whole matrix.
struct CountMatrix {
  const std::int32_t* rows = nullptr;
  int num_ranks = 0;
  int num_experts = 0;

  MOELINK_HD static constexpr std::size_t row_length(int num_ranks, int num_experts) {
    return static_cast<std::size_t>(num_ranks) + static_cast<std::size_t>(num_experts);
  }

  MOELINK_HD constexpr const std::int32_t* row(Rank source) const {
    return rows + source.index() * row_length(num_ranks, num_experts);
  }
  MOELINK_HD constexpr std::int32_t tokens(Rank source, Rank destination) const {
    return row(source)[destination.index()];
  }
  MOELINK_HD constexpr std::int32_t selections(Rank source, Expert expert) const {
    return row(source)[static_cast<std::size_t>(num_ranks) + expert.index()];
  }

  // Tokens that `destination` receives from ranks below `end` (N for end = R).
  MOELINK_HD constexpr std::int64_t tokens_before(Rank end, Rank destination) const {
    std::int64_t sum = 0;
    for (Rank source(0); source < end; source = source.next()) sum += tokens(source, destination);
    return sum;
  }
  MOELINK_HD constexpr std::int64_t selections_before(Rank end, Expert expert) const {
    std::int64_t sum = 0;
    for (Rank source(0); source < end; source = source.next()) sum += selections(source, expert);
    return sum;
  }
  MOELINK_HD constexpr std::int64_t num_tokens(Rank destination) const {
    return tokens_before(Rank(num_ranks), destination);
  }
  MOELINK_HD constexpr std::int64_t num_selections(Expert expert) const {
    return selections_before(Rank(num_ranks), expert);
  }
};

}  // namespace moelink
