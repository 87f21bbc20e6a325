// How the rows of a combine are cut into chunks, and where they lie in a staging area.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/types.hpp"
#include "protocol/counts.hpp"
#include "protocol/limits.hpp"
#include "protocol/signal.hpp"

namespace moelink {

// Rows staged at a time by one rank. Two of these per rank should stay in the caches together:
// measured with 1, 2 and 4 MiB, see docs/performance.md.
inline constexpr std::size_t kStagingChunkBytes = std::size_t{2} << 20;
inline constexpr std::uint32_t kNumStagingSlots = 2;

// Equal on all ranks: enough chunks that the rank with most rows stages about kStagingChunkBytes.
MOELINK_HD constexpr std::uint32_t num_staging_chunks(const CountMatrix& counts,
                                                      std::size_t row_bytes) {
  std::int64_t most = 0;
  for (Rank rank(0); rank.value() < counts.num_ranks; rank = rank.next()) {
    most = std::max(most, counts.num_tokens(rank));
  }
  const std::size_t chunks =
      (static_cast<std::size_t>(most) * row_bytes + kStagingChunkBytes - 1) / kStagingChunkBytes;
  return static_cast<std::uint32_t>(
      std::clamp<std::size_t>(chunks, 1, SignalValue::kMaxProgress - 1));
}

// First token of a chunk at a rank that has `num_tokens`; chunk == num_chunks gives the end.
MOELINK_HD constexpr std::int64_t chunk_begin(std::int64_t num_tokens, std::uint32_t chunk,
                                              std::uint32_t num_chunks) {
  return num_tokens * chunk / num_chunks;
}

// The table at the start of a staging area: int32 first_row[R + 1]. In every slot the rows for rank
// i start at row first_row[i]; a slot has first_row[R] rows. The slots follow at slots_offset().
struct StagingTable {
  std::int32_t* first_row = nullptr;
  int num_ranks = 0;

  MOELINK_HD constexpr std::size_t slots_offset() const {
    return align_up((static_cast<std::size_t>(num_ranks) + 1) * sizeof(std::int32_t),
                    kPartAlignment);
  }
  MOELINK_HD constexpr std::size_t slot_bytes(std::size_t row_bytes) const {
    return static_cast<std::size_t>(first_row[num_ranks]) * row_bytes;
  }
  MOELINK_HD constexpr std::size_t offset_of(Rank rank, std::size_t row_bytes) const {
    return slots_offset() + static_cast<std::size_t>(first_row[rank.index()]) * row_bytes;
  }
};

}  // namespace moelink
