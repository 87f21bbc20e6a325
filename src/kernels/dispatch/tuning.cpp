// Grid and shared memory of a dispatch, from its shape.
#include <algorithm>
#include <limits>

#include "base/check.hpp"
#include "kernels/dispatch/launch.hpp"
#include "kernels/dispatch/roles.hpp"
#include "kernels/dispatch/stages.hpp"
#include "kernels/piece_size.hpp"
#include "protocol/counts.hpp"

namespace moelink::kernels {
namespace {

// Larger pieces gain nothing, smaller ones cost an instruction each.
constexpr std::size_t kMaxChunkBytes = 8192;
constexpr std::int64_t kWarpSize = 32;
// A block with fewer tokens is not worth its part in the exchange.
constexpr std::int64_t kMinTokensPerBlock = 8;
// A token's rows on its own rank are several, each as large as the one that goes to a peer. Like
// those that send, the blocks must all be resident at once.
constexpr int kMostOwnBlocksPerBlock = 3;

// Counters cost a turn each to clear and to add up, so only as many as have a step's tokens. A mask
// is read token by token.
std::size_t useful_counters(const DispatchParams& params, const DispatchPlan& plan) {
  if (params.mask != nullptr) return DispatchRoles::kNumWarps;
  const std::int64_t per_block = (params.num_tokens + plan.num_blocks - 1) / plan.num_blocks;
  const std::int64_t per_step = kWarpSize / std::max(params.topk.num_topk, 1);
  return static_cast<std::size_t>(
      std::clamp<std::int64_t>((per_block + per_step - 1) / per_step, 1, DispatchRoles::kNumWarps));
}

// The kernels number the elements of what goes with the tokens in 32 bits.
void check_elements(const DispatchParams& params) {
  const std::int64_t per_token = std::max(
      {params.topk.num_topk, params.scales.num_columns, std::int32_t{params.domain.num_ranks()}});
  if (params.num_tokens < std::numeric_limits<std::int32_t>::max() / 2 / per_token) return;
  fail(ErrorCode::kUnsupported,
       "{} (rank {}): {} tokens with {} elements each (ranks, top-k or scales) are more than 2^30",
       operation_name(params.operation), params.domain.rank.value(), params.num_tokens, per_token);
}

}  // namespace

DispatchPlan plan_dispatch(const DispatchParams& params, const device::LaunchLimits& limits) {
  check_elements(params);
  DispatchPlan plan;
  plan.num_blocks = static_cast<int>(std::clamp<std::int64_t>(
      params.num_tokens / kMinTokensPerBlock, 1, limits.num_waiting_blocks));
  plan.num_expand_blocks = limits.num_free_blocks;
  if (params.shape.layout == Layout::kExpertMajor) {
    plan.num_own_blocks = std::clamp(limits.num_free_blocks - plan.num_blocks, 0,
                                     kMostOwnBlocksPerBlock * plan.num_blocks);
  }
  const std::size_t columns =
      CountMatrix::row_length(params.domain.num_ranks(), params.num_experts);
  const std::size_t row = columns * sizeof(std::int32_t);
  const std::size_t sums = align_up(row, kPartAlignment);
  const std::size_t room = limits.shared_bytes_per_block - sums;
  if (sums + row > limits.shared_bytes_per_block) {
    fail(ErrorCode::kUnsupported,
         "{} (rank {}): the counters of {} ranks and {} experts need {} bytes of shared memory, a "
         "block of this GPU has {}",
         operation_name(params.operation), params.domain.rank.value(), params.domain.num_ranks(),
         params.num_experts, sums + row, limits.shared_bytes_per_block);
  }
  plan.num_counters =
      static_cast<int>(std::min<std::size_t>(useful_counters(params, plan), room / row));
  constexpr std::size_t kPieces = DispatchRoles::kNumSendWarps * kNumStages;
  plan.chunk_bytes =
      PieceSize::fit(params.shape.row_bytes, kMaxChunkBytes, kPieces, room).chunk_bytes;
  const std::size_t pieces = kPieces * plan.chunk_bytes;
  plan.shared_bytes = sums + std::max(pieces, static_cast<std::size_t>(plan.num_counters) * row);
  return plan;
}

}  // namespace moelink::kernels
