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

// How GPUs cut and place what they stage: by tokens alone, so that holders and owners of rows find
// the places without a table, and the counts of tokens that an exchange brings are enough. Slot
// c % kNumSlots of the ring holds chunk c; a slot has tokens_per_slot rows for each owner, a row's
// place among them being that of its token in the owner's chunk.
struct StagingRing {
  static constexpr std::uint32_t kNumSlots = 4;
  // Small enough to stay in the second-level cache of a GPU while it is written and read.
  static constexpr std::size_t kMaxBytes = std::size_t{32} << 20;
  // With fewer tokens a chunk costs more signals than it saves waiting.
  static constexpr std::int64_t kMinTokensPerSlot = 16;

  std::uint32_t num_chunks = 1;
  std::int64_t tokens_per_slot = 0;

  // Size of a ring for a rank that expects no rank to have more than `most_tokens`: any size from
  // the least on works, with more chunks if it is smaller than it could be.
  MOELINK_HD static constexpr std::size_t bytes(int num_ranks, std::int64_t most_tokens,
                                                std::size_t row_bytes) {
    const std::size_t token_bytes = static_cast<std::size_t>(num_ranks) * row_bytes;
    const std::size_t whole = static_cast<std::size_t>(most_tokens) * token_bytes;
    const std::size_t least = kNumSlots * kMinTokensPerSlot * token_bytes;
    return std::max(least, std::min(whole, kMaxBytes));
  }

  // `least_bytes`: of the rings of all ranks that stage; `most_tokens`: T of the rank that has
  // most. More than kMaxProgress chunks cannot be signalled: see is_valid().
  MOELINK_HD static constexpr StagingRing make(int num_ranks, std::int64_t most_tokens,
                                               std::size_t least_bytes, std::size_t row_bytes) {
    const std::size_t token_bytes = static_cast<std::size_t>(num_ranks) * row_bytes;
    const auto tokens = static_cast<std::int64_t>(least_bytes / token_bytes);
    if (most_tokens <= tokens) return StagingRing{1, most_tokens};
    const std::int64_t per_slot = tokens / kNumSlots;
    return StagingRing{static_cast<std::uint32_t>((most_tokens + per_slot - 1) / per_slot),
                       per_slot};
  }

  MOELINK_HD constexpr bool is_valid() const { return num_chunks < SignalValue::kMaxProgress; }

  // Row of the ring at which the rows of `owner`'s tokens in `chunk` begin.
  MOELINK_HD constexpr std::int64_t first_row(std::uint32_t chunk, Rank owner,
                                              int num_ranks) const {
    return (std::int64_t{chunk % kNumSlots} * num_ranks + owner.value()) * tokens_per_slot;
  }
};

}  // namespace moelink
