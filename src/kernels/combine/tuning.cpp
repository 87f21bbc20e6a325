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

}  // namespace

void fail_without_instance(DType dtype) {
  fail(ErrorCode::kInternal, "combine has no kernel for {}", dtype_name(dtype));
}

CombinePlan plan_combine(const CombineParams& params, const device::LaunchLimits& limits) {
  CombinePlan plan;
  plan.num_blocks = static_cast<int>(std::clamp<std::int64_t>(
      params.num_tokens / kMinTokensPerBlock, 1, limits.num_waiting_blocks));
  plan.num_stage_blocks = limits.num_free_blocks;
  constexpr std::size_t kPieces = CombineRoles::kNumPullWarps * kNumPullStages;
  const PieceSize size =
      PieceSize::fit(params.row_bytes, max_pull_bytes(params.domain.topology.num_nodes), kPieces,
                     limits.shared_bytes_per_block);
  plan.num_chunks = static_cast<int>(size.num_chunks);
  plan.chunk_bytes = size.chunk_bytes;
  plan.shared_bytes = kPieces * plan.chunk_bytes;
  return plan;
}

}  // namespace moelink::kernels
