// What lies where in the shared memory of a low latency block: alike for whoever sizes it and
// whoever uses it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/low_latency/params.hpp"
#include "kernels/low_latency/roles.hpp"
#include "protocol/limits.hpp"

namespace moelink::kernels {

struct LowLatencyShared {
  // Offsets in bytes.
  std::size_t of_expert;   // int32 [E]: counts of selections, then of what is received [R, L]
  std::size_t of_rank;     // int32 [R]
  std::size_t heard;       // LowLatencyHeader [R]
  std::size_t is_there;    // uint8 [R]
  std::size_t first_unit;  // int32 [R + 1]
  std::size_t targets;
  std::size_t headers;  // of a token's targets while sending, of arriving rows while receiving
  std::size_t body;
  std::size_t total;

  static constexpr std::size_t kTargetsBytes = (2 * kMaxTopk + 2) * sizeof(std::int32_t);
  static constexpr std::size_t kRowHeadersBytes =
      LowLatencyRoles::kNumWarps * RowHeader::bytes(kMaxTopk);

  // `body_bytes`: of a row on its way, 0 in a combine.
  MOELINK_HD static LowLatencyShared make(const LowLatencyLink& link, std::size_t body_bytes) {
    constexpr std::size_t kWord = sizeof(std::int32_t);
    constexpr std::size_t kAlignment = 16;
    const auto ranks = static_cast<std::size_t>(link.num_ranks());
    const auto topk = static_cast<std::size_t>(link.area.num_topk);
    const std::size_t most_targets = topk < ranks ? topk : ranks;
    const std::size_t sent = most_targets * RowHeader::bytes(link.area.num_topk);
    LowLatencyShared parts{};
    const auto take = [&parts](std::size_t bytes) {
      const std::size_t at = parts.total;
      parts.total = align_up(parts.total + bytes, kAlignment);
      return at;
    };
    parts.of_expert = take(static_cast<std::size_t>(link.num_experts) * kWord);
    parts.of_rank = take(ranks * kWord);
    parts.heard = take(ranks * sizeof(LowLatencyHeader));
    parts.is_there = take(ranks);
    parts.first_unit = take((ranks + 1) * kWord);
    parts.targets = take(kTargetsBytes);
    parts.headers = take(sent > kRowHeadersBytes ? sent : kRowHeadersBytes);
    parts.body = take(body_bytes == 0 ? 0 : body_bytes + kLineBytes);
    return parts;
  }
};

}  // namespace moelink::kernels
