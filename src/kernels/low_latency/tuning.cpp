// Grid and shared memory of the low latency operations, from their shape.
#include <algorithm>

#include "kernels/low_latency/launch.hpp"
#include "kernels/low_latency/roles.hpp"
#include "kernels/low_latency/shared_memory.hpp"

namespace moelink::kernels {
namespace {

// Blocks whose warps have a part of a row each.
int blocks_for_rows(const LineArea& area, std::int64_t num_rows, std::size_t message_bytes) {
  constexpr int kLinesPerPart = kRowSteps * kLinesPerStep;
  const auto lines = static_cast<std::int64_t>(num_lines(area.format, message_bytes));
  const std::int64_t parts = (lines + kLinesPerPart - 1) / kLinesPerPart * num_rows;
  return static_cast<int>((parts + LowLatencyRoles::kNumWarps - 1) / LowLatencyRoles::kNumWarps);
}

}  // namespace

LowLatencyPlan plan_low_latency(const LowLatencyDispatchParams& params, int num_blocks) {
  const LowLatencyLink& link = params.link;
  const RowBody body = RowBody::make(link.header.format, link.area.hidden);
  const std::int64_t rows = std::int64_t{link.num_tokens} * link.num_ranks();
  const int wanted = std::max(
      link.num_tokens + 1,  // a block per token, and one that announces them
      blocks_for_rows(link.area, rows, RowHeader::bytes(link.area.num_topk) + body.bytes()));
  return {std::clamp(wanted, 1, num_blocks), LowLatencyShared::make(link, body.bytes()).total};
}

LowLatencyPlan plan_low_latency(const LowLatencyCombineParams& params, int num_blocks) {
  const LowLatencyLink& link = params.link;
  const std::int64_t rows = std::int64_t{link.num_tokens} * link.num_ranks();
  const int wanted =
      std::max(link.num_tokens, blocks_for_rows(link.area, rows, link.area.hidden * 2));
  return {std::clamp(wanted, 1, num_blocks), LowLatencyShared::make(link, 0).total};
}

}  // namespace moelink::kernels
