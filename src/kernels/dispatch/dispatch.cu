// Entries of the dispatch kernels: which warp takes which role.
#include "device/pass_stage.cuh"
#include "device/previous_kernel.cuh"
#include "kernels/dispatch/agree.cuh"
#include "kernels/dispatch/describe.cuh"
#include "kernels/dispatch/expand.cuh"
#include "kernels/dispatch/launch.hpp"
#include "kernels/dispatch/roles.hpp"
#include "kernels/dispatch/route.cuh"
#include "kernels/dispatch/send.cuh"
#include "kernels/launch_check.hpp"

namespace moelink::kernels {
namespace {

// Shared memory of a block: sums [R + E], then counters while routing and pieces while moving.
struct SharedParts {
  std::int32_t* sums;
  std::byte* rest;

  __device__ SharedParts(std::byte* base, int num_columns)
      : sums(reinterpret_cast<std::int32_t*>(base)),
        rest(base + align_up(static_cast<std::size_t>(num_columns) * sizeof(std::int32_t),
                             kPartAlignment)) {}
};

__device__ int warp_index() { return static_cast<int>(threadIdx.x / warpSize); }

// All threads of a block: tells the others how many of its tokens go where.
__device__ void publish_partial(const Domain& domain, const std::int32_t* sums, int num_columns) {
  std::int32_t* const partial = domain.partials + static_cast<int>(blockIdx.x) * num_columns;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_columns; i += static_cast<int>(blockDim.x)) {
    partial[i] = sums[i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const device::DeviceWord<std::uint32_t> counted(domain.local->num_counted);
  counted.fetch_add(1, cuda::memory_order_acq_rel);
}

// All threads of a block that routes: its tokens have their rows now.
__device__ void publish_placement(const DispatchParams& params, const DispatchPlan& plan) {
  if (plan.num_own_blocks == 0 || threadIdx.x != 0) return;
  const device::DeviceWord<std::uint32_t> placed(params.domain.local->num_placed);
  placed.fetch_add(1, cuda::memory_order_release);
}

// The pipe of a warp that carries payload.
__device__ Pipe pipe_of_warp(const DispatchPlan& plan, std::byte* pieces) {
  __shared__ std::uint64_t barriers[DispatchRoles::kNumSendWarps][kNumStages];
  const int warp = warp_index();
  return Pipe(pieces + static_cast<std::size_t>(warp * kNumStages) * plan.chunk_bytes,
              plan.chunk_bytes, barriers[warp]);
}

__device__ Crew describe_crew() {
  return Crew{static_cast<int>(threadIdx.x) - 32 * DispatchRoles::kNumSendWarps,
              32 * DispatchRoles::kNumDescribeWarps};
}

// All threads of a block: payload and description travel side by side.
__device__ void move_tokens(const DispatchParams& params, const DispatchPlan& plan,
                            TokenRange tokens, std::byte* pieces) {
  const int warp = warp_index();
  if (warp >= DispatchRoles::kNumSendWarps) {
    describe_tokens(params, tokens, describe_crew());
    return;
  }
  Pipe pipe = pipe_of_warp(plan, pieces);
  const RowChoice choice =
      plan.num_own_blocks > 0 ? RowChoice::kFirstOfPeers : RowChoice::kFirstOfPeersAndOwn;
  send_rows(params, choice, pipe,
            RowPieces{static_cast<int>(tokens.begin) + warp, DispatchRoles::kNumSendWarps,
                      static_cast<int>(tokens.end), params.shape.row_bytes, plan.chunk_bytes});
}

// All threads of a block that does not route, after the exchange: writes its share of the own rows
// and of what pads them, once all tokens have been placed.
__device__ void move_own_rows(const DispatchParams& params, const DispatchPlan& plan,
                              std::byte* pieces) {
  const Domain& domain = params.domain;
  const int block = static_cast<int>(blockIdx.x) - plan.num_blocks;
  const int warp = warp_index();
  if (warp >= DispatchRoles::kNumSendWarps) {
    fill_unused(params, FillShare{block, plan.num_own_blocks, describe_crew()});
    return;
  }
  const device::WaitTarget target{params.operation, Stage::kPlace, domain.rank,
                                  current_epoch(domain)};
  bool placed = true;
  if (!params.is_cached() && threadIdx.x % warpSize == 0) {
    placed = device::wait_for_blocks(domain, target, domain.local->num_placed,
                                     static_cast<std::uint32_t>(plan.num_blocks));
  }
  if (__all_sync(~0U, placed) == 0) return;
  __syncwarp();
  Pipe pipe = pipe_of_warp(plan, pieces);
  send_rows(
      params, RowChoice::kOwn, pipe,
      RowPieces{warp * plan.num_own_blocks + block,
                DispatchRoles::kNumSendWarps * plan.num_own_blocks,
                static_cast<int>(params.num_tokens), params.shape.row_bytes, plan.chunk_bytes});
}

// All threads of a block that routes: from its tokens to their rows at the receivers.
__device__ Verdict route_and_send(const DispatchParams& params, const DispatchPlan& plan,
                                  std::byte* shared) {
  const Domain& domain = params.domain;
  const auto num_columns =
      static_cast<int>(CountMatrix::row_length(domain.num_ranks(), params.num_experts));
  const SharedParts parts(shared, num_columns);
  const RouteCounters counters{reinterpret_cast<std::int32_t*>(parts.rest), num_columns,
                               plan.num_counters};
  const int block = static_cast<int>(blockIdx.x);
  const TokenRange tokens = part_of({0, params.num_tokens}, block, plan.num_blocks);
  if (!params.is_cached()) {
    count_tokens(params, tokens, counters, parts.sums);
    __syncthreads();
    publish_partial(domain, parts.sums, num_columns);
  }
  device::pass_stage(domain, Stage::kCount);
  if (block == 0) agree(params, plan, parts.sums, num_columns);
  const Verdict verdict = await_release(domain, params.operation);
  device::pass_stage(domain, Stage::kExchange);
  if (verdict != Verdict::kProceed) return verdict;
  if (!params.is_cached()) {
    find_first_rows(params, counters);
    place_tokens(params, tokens, counters);
    __syncthreads();
    publish_placement(params, plan);
  }
  device::pass_stage(domain, Stage::kPlace);
  move_tokens(params, plan, tokens, parts.rest);
  if (block == 0 && !params.is_cached()) describe_receive(params);
  if (params.shape.layout == Layout::kCompact) {
    const Crew all{static_cast<int>(threadIdx.x), DispatchRoles::kNumThreads};
    fill_tail(params, FillShare{block, plan.num_blocks, all});
  }
  return verdict;
}

__global__ __launch_bounds__(DispatchRoles::kNumThreads,
                             1) void dispatch_kernel(const __grid_constant__ DispatchParams params,
                                                     const __grid_constant__ DispatchPlan plan) {
  extern __shared__ __align__(128) std::byte shared[];
  const Domain& domain = params.domain;
  device::await_previous_kernel();
  device::pass_stage(domain, Stage::kRoute);  // the start of the operation
  Verdict verdict = Verdict::kGaveUp;
  if (static_cast<int>(blockIdx.x) < plan.num_blocks) {
    verdict = route_and_send(params, plan, shared);
  } else {
    verdict = await_release(domain, params.operation);
    if (verdict == Verdict::kProceed) move_own_rows(params, plan, shared);
  }
  device::pass_stage(domain, Stage::kSend);
  if (!is_last_block(domain)) return;
  if (verdict == Verdict::kProceed && !has_fault(domain)) {
    device::pass_stage(domain, Stage::kSignal);
    __syncthreads();
    signal_all(domain, SignalChannel::kDelivered, current_epoch(domain));
    await_all(domain, params.operation, Stage::kReceive, SignalChannel::kDelivered);
  }
  device::note_end(domain, Stage::kReceive);
  end_operation(domain);
}

__global__ __launch_bounds__(32 * DispatchRoles::kNumSendWarps,
                             1) void finish_kernel(const __grid_constant__ DispatchParams params,
                                                   const __grid_constant__ DispatchPlan plan) {
  extern __shared__ __align__(128) std::byte shared[];
  device::await_previous_kernel();
  if (params.domain.local->verdict != Verdict::kProceed) return;
  const auto block = static_cast<int>(blockIdx.x);
  const auto num_blocks = static_cast<int>(gridDim.x);
  if (plan.num_own_blocks == 0) {
    const Crew all{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    fill_unused(params, FillShare{block, num_blocks, all});
  }
  Pipe pipe = pipe_of_warp(plan, shared);
  const auto foreign = ForeignTokens::of(params.count_matrix(), params.domain.rank);
  expand_rows(
      params, pipe, foreign,
      RowPieces{warp_index() * num_blocks + block, DispatchRoles::kNumSendWarps * num_blocks,
                static_cast<int>(foreign.count), params.shape.row_bytes, plan.chunk_bytes});
}

}  // namespace

void load_dispatch_kernels() {
  allow_shared_memory(dispatch_kernel);
  allow_shared_memory(finish_kernel);
}

void launch_dispatch(const DispatchParams& params, const DispatchPlan& plan, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(plan.num_blocks + plan.num_own_blocks));
  config.blockDim = dim3(DispatchRoles::kNumThreads);
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  launch_early(dispatch_kernel, config, "launch dispatch", params, plan);
  if (params.shape.layout == Layout::kCompact) return;
  config.gridDim = dim3(static_cast<unsigned>(plan.num_expand_blocks));
  config.blockDim = dim3(32 * DispatchRoles::kNumSendWarps);
  launch_early(finish_kernel, config, "launch the end of dispatch", params, plan);
}

}  // namespace moelink::kernels
