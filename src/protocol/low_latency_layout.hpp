// Fixed slots of the low latency mode: where each rank writes what into its peers' areas.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/low_latency.hpp"
#include "moelink/types.hpp"
#include "protocol/limits.hpp"
#include "protocol/signal.hpp"

namespace moelink {

inline constexpr int kMaxLowLatencyTokens = 4096;
inline constexpr std::size_t kNumLowLatencyHalves = 2;
inline constexpr int kMaxOutstandingLowLatency = 2;

// What a message claims about itself, so that ranks whose calls differ find out.
struct LowLatencyHeader {
  std::uint64_t epoch;       // of the operation that wrote it
  std::uint32_t operation;   // trace.hpp's Operation
  std::uint32_t format;      // dispatch: wire format; combine: CombineNumerics
  std::uint32_t num_tokens;  // dispatch: tokens in the message
  std::uint32_t has_weights;
  std::uint32_t num_experts;
  std::uint32_t refused;  // 1: the source cannot carry out its own call, which no host has checked
};
static_assert(sizeof(LowLatencyHeader) == 32);

// Starts a message between nodes, which carries a part of an operation's message: entries and, from
// rows_offset() on, as many rows. Dispatch: entries as in the area; combine: token and k.
struct LowLatencyPart {
  LowLatencyHeader header;  // num_tokens: of this part
  std::uint32_t first;      // number of its first token in the message
  std::uint32_t is_last;
  std::uint32_t entry_bytes;
  std::uint32_t row_bytes;

  MOELINK_HD constexpr std::size_t entry_offset(std::size_t i) const {
    return sizeof(LowLatencyPart) + i * entry_bytes;
  }
  MOELINK_HD constexpr std::size_t row_offset(std::size_t i) const {
    return align_up(entry_offset(header.num_tokens), kRowGranuleBytes) + i * row_bytes;
  }
  MOELINK_HD constexpr std::size_t total_bytes() const { return row_offset(header.num_tokens); }
  // Tokens that fit into so many bytes.
  MOELINK_HD constexpr std::size_t capacity(std::size_t bytes) const {
    const std::size_t fixed = sizeof(LowLatencyPart) + kRowGranuleBytes;
    return bytes < fixed ? 0 : (bytes - fixed) / (entry_bytes + row_bytes);
  }
};
static_assert(sizeof(LowLatencyPart) == 48);

// Wire format of a row: 0 bfloat16, else 1 + ScaleFormat.
inline constexpr std::uint32_t kWireBFloat16 = 0;

// Rows of one source rank among those of a local expert, as layout_range packs them: the number of
// rows in the low half, the first row in the high half.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;

  MOELINK_HD static constexpr RowRange unpack(std::int64_t packed) {
    return RowRange{packed >> 32, packed & 0xffffffff};
  }
  MOELINK_HD constexpr std::int64_t pack() const { return (begin << 32) | count; }
};

// Leading extents of what a dispatch returns: per expert [L, R*M], per rank [R, M].
struct OutputExtents {
  std::int64_t groups = 0;
  std::int64_t rows = 0;  // of each group

  MOELINK_HD static constexpr OutputExtents make(LowLatencyLayout layout, int num_ranks,
                                                 int num_experts, int max_tokens) {
    if (layout == LowLatencyLayout::kPerRank) return OutputExtents{num_ranks, max_tokens};
    return OutputExtents{num_experts / num_ranks, std::int64_t{num_ranks} * max_tokens};
  }
};

MOELINK_HD constexpr SignalChannel low_latency_received_channel(Epoch epoch) {
  return epoch.value() % kNumLowLatencyHalves == 0 ? SignalChannel::kLowLatencyReceivedEven
                                                   : SignalChannel::kLowLatencyReceivedOdd;
}

// An area has two halves, used by operations in turn. A half has an outbox for the rows of the own
// tokens, for every source rank a message that lists which of its rows are meant for this rank, and
// for every own token and position k of its list a row for what comes back.
struct LowLatencyArea {
  int num_ranks = 0;
  int max_tokens = 0;  // M
  int num_topk = 0;    // K
  std::size_t hidden = 0;

  static constexpr std::size_t kLine = 64;

  // A row in its largest form, bfloat16. FP8 values and their scales take less: H + H/32 bytes.
  MOELINK_HD constexpr std::size_t row_stride() const { return align_up(hidden * 2, kLine); }
  // int32 source token, int32 padding, int32 local ids [K], float weights [K].
  MOELINK_HD constexpr std::size_t entry_stride() const {
    return align_up(8 + 8 * static_cast<std::size_t>(num_topk), std::size_t{16});
  }
  MOELINK_HD constexpr std::size_t half_bytes() const {
    return returns_offset_in_half() + num_returns() * row_stride();
  }
  MOELINK_HD constexpr std::size_t total_bytes() const {
    return align_up(kNumLowLatencyHalves * half_bytes(), kPartAlignment);
  }

  // Epoch of the operation whose rows the outbox holds: uint64, written by the area's owner before
  // it writes the first of them. Readers look again after they have read.
  MOELINK_HD constexpr std::size_t outbox_epoch_offset(Epoch epoch) const {
    return half_offset(epoch);
  }
  MOELINK_HD constexpr std::size_t outbox_offset(Epoch epoch, TokenIdx token) const {
    return half_offset(epoch) + kLine + token.index() * row_stride();
  }
  MOELINK_HD constexpr std::size_t message_offset(Epoch epoch, Rank source) const {
    return half_offset(epoch) + messages_offset_in_half() + source.index() * message_bytes();
  }
  MOELINK_HD constexpr std::size_t entry_offset(Epoch epoch, Rank source, std::size_t i) const {
    return message_offset(epoch, source) + kLine + i * entry_stride();
  }
  // Written by the rank that holds the expert of selection k.
  MOELINK_HD constexpr std::size_t return_offset(Epoch epoch, TokenIdx token, int k) const {
    const std::size_t i = token.index() * static_cast<std::size_t>(num_topk);
    return half_offset(epoch) + returns_offset_in_half() +
           (i + static_cast<std::size_t>(k)) * row_stride();
  }

  friend constexpr bool operator==(const LowLatencyArea&, const LowLatencyArea&) = default;

 private:
  MOELINK_HD constexpr std::size_t half_offset(Epoch epoch) const {
    return epoch.value() % kNumLowLatencyHalves * half_bytes();
  }
  MOELINK_HD constexpr std::size_t messages_offset_in_half() const {
    return kLine + static_cast<std::size_t>(max_tokens) * row_stride();
  }
  MOELINK_HD constexpr std::size_t message_bytes() const {
    return kLine + align_up(static_cast<std::size_t>(max_tokens) * entry_stride(), kLine);
  }
  MOELINK_HD constexpr std::size_t returns_offset_in_half() const {
    return messages_offset_in_half() + static_cast<std::size_t>(num_ranks) * message_bytes();
  }
  MOELINK_HD constexpr std::size_t num_returns() const {
    return static_cast<std::size_t>(max_tokens) * static_cast<std::size_t>(num_topk);
  }
};

}  // namespace moelink
