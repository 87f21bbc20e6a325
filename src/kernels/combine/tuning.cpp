// Grid and shared memory of a combine, from its shape.
#include <algorithm>

#include "base/check.hpp"
#include "kernels/combine/launch.hpp"
#include "kernels/combine/roles.hpp"
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
  const std::size_t fitting =
      limits.shared_bytes_per_block / kPieces / kRowGranuleBytes * kRowGranuleBytes;
  const std::size_t most = std::min(max_pull_bytes(params.domain.topology.num_nodes), fitting);
  const std::size_t num_chunks = std::max<std::size_t>(1, (params.row_bytes + most - 1) / most);
  plan.num_chunks = static_cast<int>(num_chunks);
  plan.chunk_bytes = align_up((params.row_bytes + num_chunks - 1) / num_chunks, kRowGranuleBytes);
  plan.shared_bytes = kPieces * plan.chunk_bytes;
  return plan;
}

}  // namespace moelink::kernels
