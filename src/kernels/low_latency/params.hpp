// Arguments of the low latency kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/domain.hpp"
#include "kernels/dispatch/params.hpp"
#include "kernels/low_latency/line_plan.hpp"
#include "kernels/low_latency/shared_memory.hpp"
#include "moelink/config.hpp"
#include "moelink/low_latency.hpp"
#include "protocol/line_area.hpp"

namespace moelink::kernels {

// Progress of a rank's low latency operations. Device memory, zero at first. An operation has the
// next number when it is sent; all numbers are counted here, so that a graph can be launched again.
struct LowLatencyState {
  std::uint64_t epoch;  // of the last operation sent; written by its last block
  // Of each half: the operation for which block 0 has found out which ranks are there; released.
  std::uint64_t decided[kNumLowLatencyHalves];
  std::uint32_t num_sent;  // blocks whose rows have reached the peers; reset by the last block
  std::uint32_t num_done;  // blocks that have done their part; reset by the last block
};

// The halves of an operation that a launch carries out.
enum class LowLatencyPhase : std::uint32_t { kSend = 1, kReceive = 2, kBoth = 3 };

MOELINK_HD constexpr bool sends(LowLatencyPhase phase) {
  return (static_cast<std::uint32_t>(phase) & 1U) != 0;
}
MOELINK_HD constexpr bool receives(LowLatencyPhase phase) {
  return (static_cast<std::uint32_t>(phase) & 2U) != 0;
}

// What every low latency operation of a buffer knows.
struct LowLatencyLink {
  device::Domain domain;
  LineArea area;
  LinePlan lines;
  LowLatencyShared shared;
  std::byte* const* areas = nullptr;  // [R], device memory: as mapped here
  LowLatencyState* state = nullptr;
  // [R], device memory: 1 for ranks that are left out. Written between operations by the host, and
  // with Survival::kMask by kernels that find a rank lost.
  std::uint32_t* masked = nullptr;
  Survival survival = Survival::kRaise;
  LowLatencyPhase phase = LowLatencyPhase::kBoth;
  // Operations that have been sent since this one, if it is received only.
  std::uint64_t age = 0;
  int num_experts = 0;
  int num_local = 0;   // experts of each rank
  int num_tokens = 0;  // T here
  TopkSource topk;
  std::int64_t* wait_cost = nullptr;  // [R] or null
  LowLatencyHeader header{};          // but for the epoch and what is counted

  MOELINK_HD int num_ranks() const { return domain.num_ranks(); }
  MOELINK_HD std::byte* area_of(Rank rank) const { return areas[rank.index()]; }
};

// What a dispatch has received, kept for the combine. Row i of source s is that of the i-th token
// which s has sent here.
struct LowLatencyMemory {
  std::int32_t* num_received = nullptr;  // [R]
  std::int32_t* source_token = nullptr;  // [R, M]
  // [R, M, K]: row among groups * rows_per_group that holds what selection k leads to; -1: none.
  // In the per-rank layout only the first selection has one.
  std::int32_t* rows = nullptr;
  float* weights = nullptr;  // [R, M, K], or null
};

struct LowLatencyDispatchParams {
  LowLatencyLink link;
  LowLatencyLayout layout = LowLatencyLayout::kPerExpert;
  const std::byte* x = nullptr;  // bfloat16 [T, H]

  std::int32_t rows_per_group = 0;
  std::byte* recv_x = nullptr;
  std::int32_t* recv_scales = nullptr;  // [groups, S, rows_per_group] in memory order, or null
  std::int32_t num_scales = 0;          // S
  std::int32_t* recv_count = nullptr;   // [groups]
  std::int64_t* layout_range = nullptr;
  std::int32_t* src_info = nullptr;
  std::int32_t* src_topk = nullptr;
  float* src_weight = nullptr;
  std::int32_t* recv_topk_idx = nullptr;  // per rank only: [R, M, K]
  float* recv_topk_weights = nullptr;
  std::int32_t* recv_stats = nullptr;
  LowLatencyMemory memory;
};

struct LowLatencyCombineParams {
  LowLatencyLink link;
  CombineNumerics numerics = CombineNumerics::kExact;  // kPreReduced also in the per-rank layout
  // Whether the rows of one token are summed here, or each travels.
  bool sums_here = false;
  const std::byte* x = nullptr;  // bfloat16 [groups, rows_per_group, H]
  LowLatencyMemory memory;
  std::byte* out = nullptr;  // bfloat16 [T, H]
};

}  // namespace moelink::kernels
