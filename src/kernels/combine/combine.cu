// Entry of the combine kernels: which warp takes which role, and the instances.
#include "device/pass_stage.cuh"
#include "device/previous_kernel.cuh"
#include "kernels/combine/launch.hpp"
#include "kernels/combine/pull.cuh"
#include "kernels/combine/roles.hpp"
#include "kernels/combine/stage.cuh"
#include "kernels/exchange/exchange.cuh"
#include "kernels/exchange/report.cuh"
#include "kernels/launch_check.hpp"

namespace moelink::kernels {
namespace {

// One warp: what this combine does about staging, from what the ranks have told. Returns, the same
// at all lanes, whether their chunks can be signalled.
__device__ bool plan_ring(const CombineParams& params) {
  const Domain& domain = params.domain;
  const Epoch epoch = current_epoch(domain);
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  unsigned long long most_tokens = 0;
  unsigned long long least_bytes = ~0ULL;
#pragma unroll 1
  for (int i = lane; i < domain.num_ranks(); i += warpSize) {
    const ExchangeBlock& block = *domain.exchange(domain.rank, epoch, Rank(i));
    most_tokens = max(most_tokens, static_cast<unsigned long long>(block.num_tokens));
    if (block.source != CombineSource::kStaged) continue;
    least_bytes = min(least_bytes, static_cast<unsigned long long>(block.spans[0].bytes));
  }
#pragma unroll 1
  for (int distance = warpSize / 2; distance > 0; distance /= 2) {
    most_tokens = max(most_tokens, __shfl_xor_sync(~0U, most_tokens, distance));
    least_bytes = min(least_bytes, __shfl_xor_sync(~0U, least_bytes, distance));
  }
  StagingRing ring{0, 0};
  if (least_bytes != ~0ULL) {
    ring = StagingRing::make(domain.num_ranks(), static_cast<std::int64_t>(most_tokens),
                             static_cast<std::size_t>(least_bytes), params.row_bytes);
  }
  if (lane == 0) domain.local->ring = ring;
  return ring.is_valid();
}

// All threads of block 0, after the exchange: where every rank gives out its rows and weights.
__device__ void find_sources(const CombineParams& params) {
  const Domain& domain = params.domain;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < domain.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    const ExchangeBlock& block = *domain.exchange(domain.rank, current_epoch(domain), Rank(i));
    device::PeerParts& peer = domain.peers[i];
    std::byte* const region = domain.region(Rank(i));
    peer.source = block.source;
    peer.parts[static_cast<int>(ReceivePart::kPayload)] = region + block.spans[0].offset;
    peer.parts[static_cast<int>(ReceivePart::kTopkWeights)] = region + block.spans[1].offset;
    if (!params.reads_itself(i)) continue;
    peer.parts[static_cast<int>(ReceivePart::kPayload)] = const_cast<std::byte*>(params.own_rows);
  }
}

// All threads of block 0: the exchange, and what the other blocks need to know of it.
__device__ void agree(const CombineParams& params) {
  const Domain& domain = params.domain;
  Verdict verdict = Verdict::kGaveUp;
  const bool takes_part = !has_fault(domain);
  if (takes_part) publish_call(domain, params.mine, nullptr, 0);
  if (takes_part &&
      await_all(domain, Operation::kCombine, Stage::kExchange, SignalChannel::kExchanged)) {
    find_sources(params);
    int refused = calls_differ(domain);
    if (threadIdx.x < warpSize && !plan_ring(params)) refused = 1;
    verdict = __syncthreads_or(refused) == 0 ? Verdict::kProceed : Verdict::kRefused;
  }
  if (verdict == Verdict::kRefused && threadIdx.x == 0) {
    raise_refusal(domain, params.report, Operation::kCombine);
  }
  release_blocks(domain, verdict);
  write_report(domain, params.report, verdict, 0);
}

// All threads of a block. Neighbours in a crew are in different blocks, so that little work uses
// all of them.
template <class Shape>
__device__ void move_rows(const CombineParams& params, const CombinePlan& plan, std::byte* pieces) {
  __shared__ std::uint64_t barriers[CombineRoles::kNumWarps][kNumPullStages];
  __shared__ PullBoard pull_board;
  if (threadIdx.x == 0) pull_board = {};
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x / warpSize);
  const int block = static_cast<int>(blockIdx.x);
  PullPipe pipe(pieces + static_cast<std::size_t>(warp * kNumPullStages) * plan.chunk_bytes,
                plan.chunk_bytes, barriers[warp]);
  const int num_pull_warps = CombineRoles::kNumWarps - plan.num_stage_warps;
  if constexpr (Shape::kStages) {
    __shared__ StageBoard board;
    if (block >= plan.num_blocks) {
      return send_back<Shape>(params, plan, pipe, block - plan.num_blocks,
                              {board, warp, CombineRoles::kNumWarps, plan.num_stage_blocks});
    }
    if (warp >= num_pull_warps) {
      return send_back<Shape>(
          params, plan, pipe, block,
          {board, warp - num_pull_warps, plan.num_stage_warps, plan.num_blocks});
    }
  }
  const int index = warp * plan.num_blocks + block;
  pull_rows<Shape>(params, plan, pipe, index, pull_board);
}

// All threads of the last block: the peers' tensors are theirs again when all ranks have read
// them. Chunks, if there are any, have been acknowledged one by one.
__device__ void release_sources(const Domain& domain) {
  if (has_fault(domain)) return;
  const std::uint32_t num_chunks = domain.local->ring.num_chunks;
  if (num_chunks == 0) signal_all(domain, SignalChannel::kConsumed, current_epoch(domain));
  await_all(domain, Operation::kCombine, Stage::kRelease, SignalChannel::kConsumed,
            num_chunks == 0 ? kDone : num_chunks);
}

template <class Shape>
__global__ __launch_bounds__(CombineRoles::kNumThreads,
                             1) void combine_kernel(const __grid_constant__ CombineParams params,
                                                    const __grid_constant__ CombinePlan plan) {
  extern __shared__ __align__(128) std::byte pieces[];
  const Domain& domain = params.domain;
  device::await_previous_kernel();
  device::pass_stage(domain, Stage::kRoute);  // the start of the operation
  if (blockIdx.x == 0) agree(params);
  const Verdict verdict = await_release(domain, Operation::kCombine);
  device::pass_stage(domain, Stage::kExchange);
  if (verdict == Verdict::kProceed) move_rows<Shape>(params, plan, pieces);
  device::pass_stage(domain, Stage::kReduce);
  if (!is_last_block(domain)) return;
  if (verdict == Verdict::kProceed) release_sources(domain);
  device::note_end(domain, Stage::kRelease);
  end_operation(domain);
}

// The instances: by element type, and for each by shape.
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

template <class Codec, class Visit>
void with_kernel(bool nodes, bool stages, const Visit& visit) {
  if (nodes) {
    visit(stages ? combine_kernel<CombineShape<Codec, true, true>>
                 : combine_kernel<CombineShape<Codec, true, false>>);
  } else {
    visit(stages ? combine_kernel<CombineShape<Codec, false, true>>
                 : combine_kernel<CombineShape<Codec, false, false>>);
  }
}

template <class Codec>
void load_kernels_of() {
#pragma unroll 1
  for (const bool nodes : {false, true}) {
#pragma unroll 1
    for (const bool stages : {false, true}) {
      with_kernel<Codec>(nodes, stages, [](auto* kernel) { allow_shared_memory(kernel); });
    }
  }
}

}  // namespace

void load_combine_kernels() {
#pragma unroll 1
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    with_codec(dtype, [](auto codec) { load_kernels_of<decltype(codec)>(); });
  }
}

void launch_combine(const CombineParams& params, const CombinePlan& plan, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(plan.num_blocks + plan.num_stage_blocks));
  config.blockDim = dim3(CombineRoles::kNumThreads);
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  with_codec(params.dtype, [&](auto codec) {
    with_kernel<decltype(codec)>(params.has_nodes(), params.stages(), [&](auto* kernel) {
      launch_early(kernel, config, "launch combine", params, plan);
    });
  });
}

}  // namespace moelink::kernels
