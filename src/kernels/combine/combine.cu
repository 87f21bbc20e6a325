// Entries of the combine kernels: which warp takes which role, and the instances.
#include "device/pass_stage.cuh"
#include "kernels/combine/launch.hpp"
#include "kernels/combine/pull.cuh"
#include "kernels/combine/roles.hpp"
#include "kernels/combine/stage.cuh"
#include "kernels/exchange/exchange.cuh"
#include "kernels/exchange/report.cuh"
#include "kernels/launch_check.hpp"
#include "protocol/counts.hpp"

namespace moelink::kernels {
namespace {

constexpr int kNumStageThreads = 512;

template <class Codec>
__global__ __launch_bounds__(kNumStageThreads,
                             2) void stage_kernel(const __grid_constant__ StageParams params) {
  const CountMatrix counts{params.counts, params.num_ranks, params.num_experts};
  const std::int64_t num_rows = counts.num_tokens(params.rank);
  const int num_warps = static_cast<int>(blockDim.x / warpSize);
  const std::int64_t stride = std::int64_t{gridDim.x} * num_warps;
  for (std::int64_t row = std::int64_t{blockIdx.x} * num_warps + threadIdx.x / warpSize;
       row < num_rows; row += stride) {
    stage_row<Codec>(params, row);
  }
}

// All threads of block 0: the exchange, and where every rank gives out its rows and weights.
__device__ void agree(const CombineParams& params) {
  const Domain& domain = params.domain;
  Verdict verdict = Verdict::kGaveUp;
  const bool takes_part = !has_fault(domain);
  if (takes_part) publish_call(domain, params.mine, nullptr, 0);
  if (takes_part &&
      await_all(domain, Operation::kCombine, Stage::kExchange, SignalChannel::kExchanged)) {
    verdict = calls_agree(domain) ? Verdict::kProceed : Verdict::kRefused;
    for (int i = static_cast<int>(threadIdx.x); i < domain.num_ranks();
         i += static_cast<int>(blockDim.x)) {
      const ExchangeBlock& block = *domain.exchange(domain.rank, current_epoch(domain), Rank(i));
      std::byte* const region = domain.region(Rank(i));
      auto& parts = domain.peers[i].parts;
      parts[static_cast<int>(ReceivePart::kPayload)] = region + block.spans[0].offset;
      parts[static_cast<int>(ReceivePart::kTopkWeights)] = region + block.spans[1].offset;
    }
  }
  if (verdict == Verdict::kRefused && threadIdx.x == 0) {
    raise_refusal(domain, params.report, Operation::kCombine);
  }
  release_blocks(domain, verdict);
  write_report(domain, params.report, verdict, 0);
}

template <class Codec, bool kNodes>
__device__ void move_rows(const CombineParams& params, const CombinePlan& plan, std::byte* pieces) {
  __shared__ std::uint64_t barriers[CombineRoles::kNumPullWarps][kNumPullStages];
  const int warp = static_cast<int>(threadIdx.x / warpSize);
  const auto part = [](std::int64_t count, unsigned block) { return count * block / gridDim.x; };
  const std::int64_t count = params.num_tokens * plan.num_chunks;
  PullPipe pipe(pieces + static_cast<std::size_t>(warp * kNumPullStages) * plan.chunk_bytes,
                plan.chunk_bytes, barriers[warp]);
  pull_pieces<Codec, kNodes>(
      params, pipe,
      OutputPieces(params, plan, part(count, blockIdx.x) + warp, part(count, blockIdx.x + 1)));
  if (params.out_weights == nullptr) return;
  combine_weights(params, part(params.num_tokens, blockIdx.x) * params.num_topk,
                  part(params.num_tokens, blockIdx.x + 1) * params.num_topk);
}

template <class Codec, bool kNodes>
__global__ __launch_bounds__(CombineRoles::kNumThreads,
                             1) void combine_kernel(const __grid_constant__ CombineParams params,
                                                    const CombinePlan plan) {
  extern __shared__ __align__(128) std::byte pieces[];
  const Domain& domain = params.domain;
  device::pass_stage(domain, Stage::kRoute);  // the start of the operation
  if (blockIdx.x == 0) agree(params);
  const Verdict verdict = await_release(domain, Operation::kCombine);
  device::pass_stage(domain, Stage::kExchange);
  if (verdict == Verdict::kProceed) move_rows<Codec, kNodes>(params, plan, pieces);
  device::pass_stage(domain, Stage::kReduce);
  if (!is_last_block(domain)) return;
  if (verdict == Verdict::kProceed) {  // the peers' tensors are theirs again afterwards
    signal_all(domain, SignalChannel::kConsumed, current_epoch(domain));
    await_all(domain, Operation::kCombine, Stage::kRelease, SignalChannel::kConsumed);
  }
  device::note_end(domain, Stage::kRelease);
  end_operation(domain);
}

// The instances, by element type and by whether sums of nodes are rounded.
template <class Visit>
void with_codec(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::kBFloat16:
      return visit(device::BFloat16Codec());
    case DType::kFloat16:
      return visit(device::Float16Codec());
    case DType::kFloat32:
      return visit(device::Float32Codec());
    default:
      fail_without_instance(dtype);
  }
}

}  // namespace

void load_combine_kernels() {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    with_codec(dtype, [](auto codec) {
      using Codec = decltype(codec);
      allow_shared_memory(combine_kernel<Codec, false>);
      allow_shared_memory(combine_kernel<Codec, true>);
      allow_shared_memory(stage_kernel<Codec>);
    });
  }
}

void launch_stage(const StageParams& params, const CombinePlan& plan, cudaStream_t stream) {
  with_codec(params.dtype, [&](auto codec) {
    stage_kernel<decltype(codec)><<<plan.num_stage_blocks, kNumStageThreads, 0, stream>>>(params);
  });
  check_launch("launch the staging of combine");
}

void launch_combine(const CombineParams& params, const CombinePlan& plan, cudaStream_t stream) {
  with_codec(params.dtype, [&](auto codec) {
    using Codec = decltype(codec);
    auto* const kernel = params.domain.topology.num_nodes > 1 ? combine_kernel<Codec, true>
                                                              : combine_kernel<Codec, false>;
    kernel<<<plan.num_blocks, CombineRoles::kNumThreads, plan.shared_bytes, stream>>>(params, plan);
  });
  check_launch("launch combine");
}

}  // namespace moelink::kernels
