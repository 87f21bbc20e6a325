// What a message that carries tokens between nodes looks like.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "protocol/limits.hpp"
#include "protocol/receive_layout.hpp"

namespace moelink {

// Starts the content. A dispatch sends at least one message to each carrier, be it empty.
struct TokenMessageHeader {
  std::uint32_t num_tokens = 0;
  std::uint32_t is_last = 0;  // of the operation, from this source
  std::uint32_t unused[2] = {};
};
static_assert(sizeof(TokenMessageHeader) == 16);

// Dispatch: the header, an entry for each token, then their payloads and their scales, each part
// one after the other. An entry: the number of the token at its source, a bit for each rank of the
// carrier's group that receives it, its experts [K] (kNoExpert where none is sent), its weights
// [K]. A cached dispatch goes to the same ranks in the same order: its entries are weights alone.
struct TokenMessage {
  std::size_t row_bytes = 0;
  std::size_t scale_bytes = 0;
  std::size_t num_ids = 0;      // K, or 0
  std::size_t num_weights = 0;  // K, or 0
  std::size_t num_masks = 0;    // 32-bit words of destinations; 0: cached

  // `shape`: of the receive tensors; `num_topk`: K of the routing.
  MOELINK_HD static constexpr TokenMessage make(const ReceiveShape& shape, std::size_t num_topk,
                                                int group_size) {
    const bool is_new = shape.origin == RowOrigin::kSent;
    return TokenMessage{.row_bytes = shape.row_bytes,
                        .scale_bytes = shape.scale_bytes,
                        .num_ids = is_new ? num_topk : 0,
                        .num_weights = shape.weight_bytes > 0 ? num_topk : 0,
                        .num_masks = is_new ? (static_cast<std::size_t>(group_size) + 31) / 32 : 0};
  }

  // Offsets inside an entry.
  MOELINK_HD constexpr std::size_t masks_offset() const { return num_masks > 0 ? 4 : 0; }
  MOELINK_HD constexpr std::size_t ids_offset() const { return masks_offset() + 4 * num_masks; }
  MOELINK_HD constexpr std::size_t weights_offset() const { return ids_offset() + 4 * num_ids; }
  MOELINK_HD constexpr std::size_t entry_bytes() const {
    return weights_offset() + 4 * num_weights;
  }

  // Offsets inside the content of a message of so many tokens.
  MOELINK_HD constexpr std::size_t entry_offset(std::size_t i) const {
    return sizeof(TokenMessageHeader) + i * entry_bytes();
  }
  MOELINK_HD constexpr std::size_t rows_offset(std::size_t num_tokens) const {
    return align_up(entry_offset(num_tokens), kRowGranuleBytes);
  }
  MOELINK_HD constexpr std::size_t scales_offset(std::size_t num_tokens) const {
    return rows_offset(num_tokens) + num_tokens * row_bytes;
  }
  MOELINK_HD constexpr std::size_t total_bytes(std::size_t num_tokens) const {
    return scales_offset(num_tokens) + num_tokens * scale_bytes;
  }
  // Tokens that fit into so many bytes.
  MOELINK_HD constexpr std::size_t capacity(std::size_t bytes) const {
    const std::size_t fixed = sizeof(TokenMessageHeader) + kRowGranuleBytes;
    return bytes < fixed ? 0 : (bytes - fixed) / (entry_bytes() + row_bytes + scale_bytes);
  }
};

// Combine: rows, then float weights [rows, K]; no header, as both sides know which tokens come.
struct PartialMessage {
  std::size_t row_bytes = 0;
  std::size_t num_weights = 0;  // K, or 0

  MOELINK_HD constexpr std::size_t weights_offset(std::size_t num_rows) const {
    return num_rows * row_bytes;
  }
  MOELINK_HD constexpr std::size_t total_bytes(std::size_t num_rows) const {
    return num_rows * (row_bytes + num_weights * sizeof(float));
  }
  MOELINK_HD constexpr std::size_t capacity(std::size_t bytes) const {
    return bytes / total_bytes(1);
  }
};

}  // namespace moelink
