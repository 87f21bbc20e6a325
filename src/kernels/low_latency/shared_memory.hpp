// What lies where in the shared memory of a low latency block; worked out by the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/low_latency/roles.hpp"
#include "protocol/limits.hpp"
#include "protocol/line_area.hpp"

namespace moelink::kernels {

// Offsets in bytes.
struct LowLatencyShared {
  std::uint32_t board = 0;      // a ControlBoard: of what is sent, in a dispatch later of what came
  std::uint32_t heard = 0;      // a ControlBoard of what came
  std::uint32_t is_there = 0;   // uint8 [R]
  std::uint32_t first_row = 0;  // int32 [R + 1]
  std::uint32_t targets = 0;    // TokenTargets
  std::uint32_t headers = 0;    // of a token's targets, later of arriving rows
  std::uint32_t body = 0;       // of a token on its way
  std::uint32_t total = 0;

  static constexpr std::size_t kTargetsBytes = (2 * kMaxTopk + 2) * sizeof(std::int32_t);
  static constexpr std::size_t kRowHeadersBytes =
      LowLatencyRoles::kNumWarps * RowHeader::bytes(kMaxTopk);

  static LowLatencyShared of_dispatch(int num_ranks, int num_experts, int num_topk,
                                      std::size_t body_bytes) {
    LowLatencyShared parts = with_board(num_ranks, num_experts);
    parts.heard = parts.board;
    const auto ranks = static_cast<std::size_t>(num_ranks);
    parts.first_row = parts.take((ranks + 1) * sizeof(std::int32_t));
    parts.targets = parts.take(kTargetsBytes);
    const auto most_targets = static_cast<std::size_t>(num_topk < num_ranks ? num_topk : num_ranks);
    const std::size_t sent = most_targets * RowHeader::bytes(num_topk);
    parts.headers = parts.take(sent > kRowHeadersBytes ? sent : kRowHeadersBytes);
    parts.body = parts.take(body_bytes + kLineBytes);  // the end of the last line means nothing
    return parts;
  }
  static LowLatencyShared of_combine(int num_ranks, int num_experts) {
    LowLatencyShared parts = with_board(num_ranks, num_experts);
    parts.heard = parts.take(board_bytes(num_ranks, 0));
    return parts;
  }

 private:
  static std::size_t board_bytes(int num_ranks, int num_local) {
    return static_cast<std::size_t>(num_ranks) * LineArea::control_bytes(num_local);
  }
  static LowLatencyShared with_board(int num_ranks, int num_experts) {
    LowLatencyShared parts;
    parts.board = parts.take(board_bytes(num_ranks, num_experts / num_ranks));
    parts.is_there = parts.take(static_cast<std::size_t>(num_ranks));
    return parts;
  }
  std::uint32_t take(std::size_t bytes) {
    const std::uint32_t at = total;
    total = static_cast<std::uint32_t>(align_up(at + bytes, std::size_t{16}));
    return at;
  }
};

}  // namespace moelink::kernels
