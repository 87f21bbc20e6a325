// Grid and shared memory of a dispatch, from its shape.
#include <algorithm>

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
// A block with fewer tokens is not worth its part in the exchange.
constexpr std::int64_t kMinTokensPerBlock = 8;
// A token's rows on its own rank are several, each as large as the one that goes to a peer. Like
// those that send, the blocks must all be resident at once.
constexpr int kMostOwnBlocksPerBlock = 3;

}  // namespace

DispatchPlan plan_dispatch(const DispatchParams& params, const device::LaunchLimits& limits) {
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
  plan.num_counters = static_cast<int>(std::min<std::size_t>(DispatchRoles::kNumWarps, room / row));
  constexpr std::size_t kPieces = DispatchRoles::kNumSendWarps * kNumStages;
  plan.chunk_bytes =
      PieceSize::fit(params.shape.row_bytes, kMaxChunkBytes, kPieces, room).chunk_bytes;
  const std::size_t pieces = kPieces * plan.chunk_bytes;
  plan.shared_bytes = sums + std::max(pieces, static_cast<std::size_t>(plan.num_counters) * row);
  return plan;
}

}  // namespace moelink::kernels
