// The final row of every token: computed alike by sender and receiver from the count matrix.
#pragma once

#include <cstdint>

#include "moelink/config.hpp"
#include "moelink/host_device.hpp"
#include "protocol/counts.hpp"
#include "protocol/expert_map.hpp"
#include "protocol/limits.hpp"

namespace moelink {

// Compact layout: rows are ordered by (source rank, token), so a source's rows at a destination
// start behind those of the lower ranks.
MOELINK_HD constexpr Row compact_start(const CountMatrix& counts, Rank source, Rank destination) {
  return Row(counts.tokens_before(source, destination));
}

// Expert-major layout: rows are grouped by local expert; a group has the rows of its expert ordered
// by (source rank, token, k) and is padded to a multiple of `alignment`.
MOELINK_HD constexpr std::int64_t padded_group_rows(const CountMatrix& counts, Expert expert,
                                                    std::int64_t alignment) {
  return align_up(counts.num_selections(expert), alignment);
}

// Writes the first row of each group of `destination` to group_start[0 .. L-1]; returns the number
// of rows of the whole tensor.
MOELINK_HD constexpr std::int64_t expert_group_starts(const CountMatrix& counts,
                                                      const ExpertMap& map, Rank destination,
                                                      std::int64_t alignment,
                                                      std::int64_t* group_start) {
  std::int64_t next = 0;
  for (LocalExpert local(0); local.value() < map.experts_per_rank; local = local.next()) {
    group_start[local.index()] = next;
    next += padded_group_rows(counts, map.global(destination, local), alignment);
  }
  return next;
}

// Number of rows of the receive tensors of `destination`.
MOELINK_HD constexpr std::int64_t num_receive_rows(const CountMatrix& counts, const ExpertMap& map,
                                                   Rank destination, Layout layout,
                                                   std::int64_t alignment) {
  if (layout == Layout::kCompact) return counts.num_tokens(destination);
  std::int64_t rows = 0;
  for (LocalExpert local(0); local.value() < map.experts_per_rank; local = local.next()) {
    rows += padded_group_rows(counts, map.global(destination, local), alignment);
  }
  return rows;
}

}  // namespace moelink
