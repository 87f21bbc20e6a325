// Where the tensors of one dispatch lie inside the block that their receiver offers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "moelink/config.hpp"
#include "moelink/host_device.hpp"
#include "protocol/limits.hpp"

namespace moelink {

// Whether the tensors that describe the rows travel too, or are those of an earlier dispatch.
enum class RowOrigin { kSent, kReused };

// Bytes per row or token of each tensor; equal on all ranks (the call digest sees to that).
struct ReceiveShape {
  Layout layout = Layout::kCompact;
  std::size_t row_bytes = 0;    // payload of a row
  std::size_t scale_bytes = 0;  // scales of a row; 0: none
  std::size_t index_bytes = 0;  // one entry of topk_idx; 0: no top-k list
  std::size_t num_topk = 0;
  std::size_t weight_bytes = 0;  // one top-k weight; 0: none
  RowOrigin origin = RowOrigin::kSent;
};

enum class ReceivePart { kPayload, kScales, kTopkIdx, kTopkWeights, kSourceToken, kExpertRow };
inline constexpr std::size_t kNumReceiveParts = 6;

// Part sizes are multiples of kPartAlignment and follow one another.
struct ReceiveLayout {
  std::array<std::size_t, kNumReceiveParts> part_bytes{};

  // `num_rows`: of the payload; `num_tokens`: distinct (token, rank) pairs (equal when compact).
  MOELINK_HD static constexpr ReceiveLayout make(const ReceiveShape& shape, std::int64_t num_rows,
                                                 std::int64_t num_tokens) {
    const auto rows = static_cast<std::size_t>(num_rows);
    const auto tokens = static_cast<std::size_t>(num_tokens);
    const bool compact = shape.layout == Layout::kCompact;
    const std::size_t weights_per_row = compact ? shape.num_topk : 1;
    ReceiveLayout layout;
    layout.set(ReceivePart::kPayload, rows * shape.row_bytes);
    layout.set(ReceivePart::kScales, rows * shape.scale_bytes);
    layout.set(ReceivePart::kTopkIdx, compact ? rows * shape.num_topk * shape.index_bytes : 0);
    layout.set(ReceivePart::kTopkWeights, rows * weights_per_row * shape.weight_bytes);
    if (shape.origin == RowOrigin::kReused) return layout;
    layout.set(ReceivePart::kSourceToken, tokens * sizeof(std::int32_t));
    if (compact) return layout;
    layout.set(ReceivePart::kExpertRow, tokens * shape.num_topk * sizeof(std::int32_t));
    return layout;
  }

  MOELINK_HD constexpr std::size_t bytes(ReceivePart part) const {
    return part_bytes[static_cast<std::size_t>(part)];
  }
  MOELINK_HD constexpr std::size_t offset(ReceivePart part) const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(part); ++i) sum += part_bytes[i];
    return sum;
  }
  MOELINK_HD constexpr std::size_t total_bytes() const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < kNumReceiveParts; ++i) sum += part_bytes[i];
    return sum;
  }

 private:
  MOELINK_HD constexpr void set(ReceivePart part, std::size_t size) {
    part_bytes[static_cast<std::size_t>(part)] = align_up(size, kPartAlignment);
  }
};

}  // namespace moelink
