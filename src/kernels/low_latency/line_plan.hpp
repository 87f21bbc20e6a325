// The numbers that kernels need of a line area, worked out once by the host: a warp spends as long
// on a 64-bit division as on a message.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/low_latency/roles.hpp"
#include "moelink/host_device.hpp"
#include "protocol/line_area.hpp"

namespace moelink::kernels {

inline constexpr int kPartVectors = kRowSteps * 32;  // of a message, that a warp takes at a time

struct LinePlan {
  std::uint64_t half_bytes = 0;
  std::uint64_t rows_offset = 0;  // in a half
  std::uint64_t returns_offset = 0;
  std::uint32_t control_stride = 0;
  std::uint32_t row_stride = 0;
  std::uint32_t return_stride = 0;

  std::int32_t control_vectors = 0;        // of a message with a count per local expert
  std::int32_t plain_control_vectors = 0;  // of one without counts

  std::uint32_t header_bytes = 0;  // of a row message
  std::uint32_t body_start = 0;    // header and scales
  std::uint32_t payload_bytes = 0;
  std::int32_t row_vectors = 0;
  std::int32_t row_parts = 0;
  std::int32_t mixed_vectors = 0;  // the first ones, which have more than payload

  std::uint32_t return_bytes = 0;
  std::int32_t return_vectors = 0;
  std::int32_t return_parts = 0;

  // `wire_format`: as LowLatencyHeader::format.
  static LinePlan make(const LineArea& area, int num_local, std::uint32_t wire_format) {
    const auto vectors = [&area](std::size_t bytes) {
      return static_cast<std::int32_t>(num_lines(area.format, bytes)) * kVectorsPerLine;
    };
    const auto parts = [](std::int32_t count) { return (count + kPartVectors - 1) / kPartVectors; };
    const auto narrow = [](std::size_t bytes) { return static_cast<std::uint32_t>(bytes); };
    const RowBody body = RowBody::make(wire_format, area.hidden);
    LinePlan plan;
    plan.half_bytes = area.half_bytes();
    plan.rows_offset = area.rows_offset_in_half();
    plan.returns_offset = area.returns_offset_in_half();
    plan.control_stride = narrow(area.control_stride());
    plan.row_stride = narrow(area.row_stride());
    plan.return_stride = narrow(area.return_stride());
    plan.control_vectors = vectors(LineArea::control_bytes(num_local));
    plan.plain_control_vectors = vectors(LineArea::control_bytes(0));
    plan.header_bytes = narrow(RowHeader::bytes(area.num_topk));
    plan.body_start = narrow(plan.header_bytes + body.scale_bytes);
    plan.payload_bytes = narrow(body.payload_bytes);
    plan.row_vectors = vectors(plan.header_bytes + body.bytes());
    plan.row_parts = parts(plan.row_vectors);
    plan.mixed_vectors = vectors(plan.body_start);
    plan.return_bytes = narrow(area.hidden * 2);
    plan.return_vectors = vectors(plan.return_bytes);
    plan.return_parts = parts(plan.return_vectors);
    return plan;
  }

  MOELINK_HD std::uint64_t half(Epoch epoch) const { return epoch.value() % 2 * half_bytes; }
  MOELINK_HD std::uint64_t control_offset(Epoch epoch, int source) const {
    return half(epoch) + std::uint64_t{control_stride} * static_cast<unsigned>(source);
  }
  // `i`: number of the row among those of all sources, M each.
  MOELINK_HD std::uint64_t row_offset(Epoch epoch, int i) const {
    return half(epoch) + rows_offset + std::uint64_t{row_stride} * static_cast<unsigned>(i);
  }
  // `i`: number of the selection in the owner's top-k list.
  MOELINK_HD std::uint64_t return_offset(Epoch epoch, int i) const {
    return half(epoch) + returns_offset + std::uint64_t{return_stride} * static_cast<unsigned>(i);
  }
};
static_assert(kNumLowLatencyHalves == 2);

// The words of a message that a lane has: vector first + lane and every 32nd after it lie so far
// apart.
template <class Line>
struct StepBytes {
  static constexpr std::uint32_t value =
      static_cast<std::uint32_t>(kLinesPerStep * line_data_bytes(Line::kFormat));
};

}  // namespace moelink::kernels
