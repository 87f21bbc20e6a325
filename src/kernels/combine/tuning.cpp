// Grid and shared memory of a combine, from its shape.
#include <algorithm>

#include "base/check.hpp"
#include "kernels/combine/launch.hpp"
#include "kernels/combine/roles.hpp"
#include "kernels/piece_size.hpp"
#include "protocol/limits.hpp"

namespace moelink::kernels {
namespace {

// A block with fewer tokens is not worth its part in the exchange.
constexpr std::int64_t kMinTokensPerBlock = 4;

// Staging copies about as many bytes as pulling does, and reads several times as many where it adds
// up the rows of several local experts; a rank with few tokens may return many rows. Like those
// that pull, the blocks must all be resident at once, so none are added beyond what the buffer may
// fill.
int num_stage_blocks(const CombineParams& params, int num_blocks,
                     const device::LaunchLimits& limits) {
  if (!params.stages()) return 0;
  const int share = params.layout == Layout::kExpertMajor ? 3 : 1;
  return std::clamp(limits.num_free_blocks - num_blocks, 0, share * limits.num_waiting_blocks);
}

}  // namespace

void fail_without_instance(DType dtype) {
  fail(ErrorCode::kInternal, "combine has no kernel for {}", dtype_name(dtype));
}

CombinePlan plan_combine(const CombineParams& params, const device::LaunchLimits& limits) {
  CombinePlan plan;
  plan.num_blocks = static_cast<int>(std::clamp<std::int64_t>(
      params.num_tokens / kMinTokensPerBlock, 1, limits.num_waiting_blocks));
  plan.num_stage_blocks = num_stage_blocks(params, plan.num_blocks, limits);
  constexpr std::size_t kPieces = CombineRoles::kNumWarps * kNumPullStages;
  const PieceSize size =
      PieceSize::fit(params.row_bytes, max_piece_bytes(params.has_nodes(), params.stages()),
                     kPieces, limits.shared_bytes_per_block);
  plan.num_chunks = static_cast<int>(size.num_chunks);
  plan.chunk_bytes = static_cast<std::uint32_t>(size.chunk_bytes);
  plan.shared_bytes = kPieces * plan.chunk_bytes;
  const bool shares_blocks = params.stages() && plan.num_stage_blocks == 0;
  plan.num_stage_warps = shares_blocks ? CombineRoles::kNumStageWarps : 0;
  plan.pulling = WarpCrew::make(plan.num_blocks * (CombineRoles::kNumWarps - plan.num_stage_warps),
                                plan.num_chunks);
  // One warp of each block that stages leads the others.
  const int num_copying = shares_blocks ? plan.num_blocks * (CombineRoles::kNumStageWarps - 1)
                                        : plan.num_stage_blocks * (CombineRoles::kNumWarps - 1);
  plan.staging = WarpCrew::make(num_copying, plan.num_chunks);
  return plan;
}

}  // namespace moelink::kernels
