// Low latency area of a GPU: fixed slots made of lines that carry their own sign of arrival.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/low_latency.hpp"
#include "moelink/types.hpp"
#include "protocol/limits.hpp"
#include "protocol/low_latency_layout.hpp"

namespace moelink {

// A line is 128 bytes, eight vectors of 16. Data travels in words of 8 bytes, two in most vectors.
inline constexpr std::size_t kLineBytes = 128;
inline constexpr std::size_t kLineVectorBytes = 16;
inline constexpr int kVectorsPerLine = 8;
inline constexpr std::size_t kLineWordBytes = 8;

// How a line tells that it has arrived.
enum class LineFormat : std::uint64_t {
  // Each vector carries 4 bytes, the epoch, 4 bytes, the epoch: right on every link, since 8 bytes
  // are never torn.
  kSplit,
  // 120 bytes and the epoch in the last word: for links that keep a store of 128 bytes by one warp
  // whole, which NVLink and a GPU's own memory do (the technique of NCCL's LL128 protocol).
  kWhole,
};

MOELINK_HD constexpr std::size_t line_data_bytes(LineFormat format) {
  return format == LineFormat::kWhole ? kLineBytes - kLineWordBytes : kLineBytes / 2;
}
// Lines that `bytes` take.
MOELINK_HD constexpr std::size_t num_lines(LineFormat format, std::size_t bytes) {
  return (bytes + line_data_bytes(format) - 1) / line_data_bytes(format);
}

// The words that a vector of a message carries, as offsets in the message.
struct LineWords {
  std::uint32_t first;
  bool has_second;  // at first + kLineWordBytes
};
MOELINK_HD constexpr LineWords words_of_vector(LineFormat format, int vector) {
  const auto v = static_cast<std::uint32_t>(vector);
  constexpr auto kWord = static_cast<std::uint32_t>(kLineWordBytes);
  if (format == LineFormat::kSplit) return {v * kWord, false};
  const std::uint32_t place = v % kVectorsPerLine;
  return {v / kVectorsPerLine * static_cast<std::uint32_t>(line_data_bytes(format)) +
              place * static_cast<std::uint32_t>(kLineVectorBytes),
          place + 1 < kVectorsPerLine};
}

// A row message begins with the token's origin and what its selections mean at the receiver:
// int32 token, int32 padding, uint32 selection [K], float weight [K].
struct RowHeader {
  MOELINK_HD static constexpr std::size_t bytes(int num_topk) {
    return 8 + 8 * static_cast<std::size_t>(num_topk);
  }
};

// One selection: which local expert, and how many earlier selections of the source chose it.
struct WireSelection {
  int local = -1;  // -1: not at this receiver
  int index = 0;

  static constexpr int kMaxLocalExperts = 65535;

  MOELINK_HD constexpr std::uint32_t pack() const {
    return local < 0 ? 0
                     : (static_cast<std::uint32_t>(index) << 16) |
                           (static_cast<std::uint32_t>(local) + 1);
  }
  MOELINK_HD static constexpr WireSelection unpack(std::uint32_t packed) {
    return {static_cast<int>(packed & 0xffffU) - 1, static_cast<int>(packed >> 16)};
  }
};
static_assert(WireSelection::unpack(WireSelection{65534, 4095}.pack()).local == 65534);
static_assert(WireSelection::unpack(WireSelection{0, 4095}.pack()).index == 4095);
static_assert(WireSelection::unpack(WireSelection{}.pack()).local == -1);

// The body of a dispatched row: scales, then the payload.
struct RowBody {
  std::size_t scale_bytes = 0;  // padded to whole words
  std::size_t payload_bytes = 0;

  // `format`: as LowLatencyHeader::format.
  MOELINK_HD static constexpr RowBody make(std::uint32_t format, std::size_t hidden) {
    if (format == kWireBFloat16) return {0, hidden * 2};
    const std::size_t blocks = hidden / kScaleBlock;
    const bool packed = format == 1 + static_cast<std::uint32_t>(ScaleFormat::kPackedUE8M0);
    return {align_up(packed ? blocks : 4 * blocks, kLineWordBytes), hidden};
  }
  MOELINK_HD constexpr std::size_t bytes() const { return scale_bytes + payload_bytes; }
};

// An area has two halves, used by operations in turn. A half has, for every source rank, a control
// message and M row messages, and for every own token and position k of its list a row for what
// comes back. Every vector of it is written in the line format only, with epochs that grow, so that
// what an older operation has left is never taken for something newer, whatever its shape.
struct LineArea {
  LineFormat format = LineFormat::kSplit;
  int num_ranks = 0;
  int max_local_experts = 0;
  int max_tokens = 0;  // M
  int num_topk = 0;    // K
  std::size_t hidden = 0;

  // Control: a LowLatencyHeader, then an int32 per local expert of the receiver.
  MOELINK_HD static constexpr std::size_t control_bytes(int num_local_experts) {
    return sizeof(LowLatencyHeader) +
           align_up(4 * static_cast<std::size_t>(num_local_experts), kLineWordBytes);
  }
  MOELINK_HD constexpr std::size_t row_stride() const {
    return message_stride(RowHeader::bytes(num_topk) + hidden * 2);
  }
  MOELINK_HD constexpr std::size_t return_stride() const { return message_stride(hidden * 2); }
  MOELINK_HD constexpr std::size_t half_bytes() const {
    return returns_offset_in_half() + static_cast<std::size_t>(max_tokens) *
                                          static_cast<std::size_t>(num_topk) * return_stride();
  }
  MOELINK_HD constexpr std::size_t total_bytes() const {
    return align_up(kNumLowLatencyHalves * half_bytes(), kPartAlignment);
  }

  MOELINK_HD constexpr std::size_t control_offset(Epoch epoch, Rank source) const {
    return half_offset(epoch) + source.index() * control_stride();
  }
  // The i-th token that `source` sends to the owner of the area.
  MOELINK_HD constexpr std::size_t row_offset(Epoch epoch, Rank source, std::size_t i) const {
    return half_offset(epoch) + rows_offset_in_half() +
           (source.index() * static_cast<std::size_t>(max_tokens) + i) * row_stride();
  }
  // Written by the rank that holds the expert of selection k.
  MOELINK_HD constexpr std::size_t return_offset(Epoch epoch, TokenIdx token, int k) const {
    const std::size_t i = token.index() * static_cast<std::size_t>(num_topk);
    return half_offset(epoch) + returns_offset_in_half() +
           (i + static_cast<std::size_t>(k)) * return_stride();
  }

  friend constexpr bool operator==(const LineArea&, const LineArea&) = default;

  MOELINK_HD constexpr std::size_t half_offset(Epoch epoch) const {
    return epoch.value() % kNumLowLatencyHalves * half_bytes();
  }
  MOELINK_HD constexpr std::size_t rows_offset_in_half() const {
    return static_cast<std::size_t>(num_ranks) * control_stride();
  }
  MOELINK_HD constexpr std::size_t returns_offset_in_half() const {
    return rows_offset_in_half() + static_cast<std::size_t>(num_ranks) *
                                       static_cast<std::size_t>(max_tokens) * row_stride();
  }
  MOELINK_HD constexpr std::size_t control_stride() const {
    return message_stride(control_bytes(max_local_experts));
  }

 private:
  MOELINK_HD constexpr std::size_t message_stride(std::size_t bytes) const {
    return num_lines(format, bytes) * kLineBytes;
  }
};

}  // namespace moelink
