// Grid and shared memory of the low latency operations, from their shape.
#include <algorithm>

#include "kernels/low_latency/launch.hpp"
#include "kernels/low_latency/roles.hpp"

namespace moelink::kernels {
namespace {

// A block has four schedulers: with a busy warp for each, warps do not wait for one another.
constexpr std::int64_t kBusyWarps = 4;

int blocks_for(std::int64_t num_units) {
  return static_cast<int>(
      std::min<std::int64_t>((num_units + kBusyWarps - 1) / kBusyWarps, 1 << 20));
}

}  // namespace

int plan_low_latency(LowLatencyDispatchParams& params, int num_blocks) {
  LowLatencyLink& link = params.link;
  link.lines = LinePlan::make(link.area, link.num_local, link.header.format);
  link.shared =
      LowLatencyShared::of_dispatch(link.num_ranks(), link.num_experts, link.area.num_topk,
                                    RowBody::make(link.header.format, link.area.hidden).bytes());
  const std::int64_t rows = std::int64_t{link.num_tokens} * link.num_ranks();
  // A block per token, and one that announces them.
  const int wanted = std::max(link.num_tokens + 1, blocks_for(rows * link.lines.row_parts));
  return std::clamp(wanted, 1, num_blocks);
}

int plan_low_latency(LowLatencyCombineParams& params, int num_blocks) {
  LowLatencyLink& link = params.link;
  link.lines = LinePlan::make(link.area, link.num_local, kWireBFloat16);
  link.shared = LowLatencyShared::of_combine(link.num_ranks(), link.num_experts);
  const std::int64_t rows = std::int64_t{link.num_tokens} * link.num_ranks();
  return std::clamp(blocks_for(rows * link.lines.return_parts), 1, num_blocks);
}

}  // namespace moelink::kernels
