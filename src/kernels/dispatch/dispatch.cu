// Entries of the dispatch kernels: which warp takes which role.
#include "device/pass_stage.cuh"
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
  for (int i = static_cast<int>(threadIdx.x); i < num_columns; i += static_cast<int>(blockDim.x)) {
    partial[i] = sums[i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const device::DeviceWord<std::uint32_t> counted(domain.local->num_counted);
  counted.fetch_add(1, cuda::memory_order_acq_rel);
}

// All threads of a block: payload and description travel side by side.
__device__ void move_tokens(const DispatchParams& params, const DispatchPlan& plan,
                            TokenRange tokens, std::byte* pieces) {
  __shared__ std::uint64_t barriers[DispatchRoles::kNumSendWarps][kNumStages];
  const int warp = warp_index();
  if (warp < DispatchRoles::kNumSendWarps) {
    Pipe pipe(pieces + static_cast<std::size_t>(warp * kNumStages) * plan.chunk_bytes,
              plan.chunk_bytes, barriers[warp]);
    send_rows(params, pipe,
              RowPieces{static_cast<int>(tokens.begin) + warp, DispatchRoles::kNumSendWarps,
                        static_cast<int>(tokens.end), params.shape.row_bytes, plan.chunk_bytes});
    return;
  }
  describe_tokens(params, tokens,
                  Crew{static_cast<int>(threadIdx.x) - 32 * DispatchRoles::kNumSendWarps,
                       32 * DispatchRoles::kNumDescribeWarps});
}

__global__ __launch_bounds__(DispatchRoles::kNumThreads,
                             1) void dispatch_kernel(const __grid_constant__ DispatchParams params,
                                                     const DispatchPlan plan) {
  extern __shared__ __align__(128) std::byte shared[];
  const Domain& domain = params.domain;
  const auto num_columns =
      static_cast<int>(CountMatrix::row_length(domain.num_ranks(), params.num_experts));
  const SharedParts parts(shared, num_columns);
  const RouteCounters counters{reinterpret_cast<std::int32_t*>(parts.rest), num_columns,
                               plan.num_counters};
  const TokenRange tokens =
      part_of({0, params.num_tokens}, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  device::pass_stage(domain, Stage::kRoute);  // the start of the operation
  if (!params.is_cached()) {
    count_tokens(params, tokens, counters, parts.sums);
    __syncthreads();
    publish_partial(domain, parts.sums, num_columns);
  }
  device::pass_stage(domain, Stage::kCount);
  if (blockIdx.x == 0) agree(params, parts.sums, num_columns);
  const Verdict verdict = await_release(domain, params.operation);
  device::pass_stage(domain, Stage::kExchange);
  if (verdict == Verdict::kProceed) {
    if (!params.is_cached()) {
      find_first_rows(params, counters);
      place_tokens(params, tokens, counters);
      __syncthreads();
    }
    device::pass_stage(domain, Stage::kPlace);
    move_tokens(params, plan, tokens, parts.rest);
    if (params.shape.layout == Layout::kCompact) {
      fill_tail(params, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
    }
  }
  device::pass_stage(domain, Stage::kSend);
  if (!is_last_block(domain)) return;
  if (verdict == Verdict::kProceed) {
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
                                                   const DispatchPlan plan) {
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ std::uint64_t barriers[DispatchRoles::kNumSendWarps][kNumStages];
  if (params.domain.local->verdict != Verdict::kProceed) return;
  fill_unused(params);
  const int warp = warp_index();
  Pipe pipe(shared + static_cast<std::size_t>(warp * kNumStages) * plan.chunk_bytes,
            plan.chunk_bytes, barriers[warp]);
  const auto foreign = ForeignTokens::of(params.count_matrix(), params.domain.rank);
  const int first = static_cast<int>(blockIdx.x) * DispatchRoles::kNumSendWarps + warp;
  const int stride = static_cast<int>(gridDim.x) * DispatchRoles::kNumSendWarps;
  expand_rows(params, pipe, foreign,
              RowPieces{first, stride, static_cast<int>(foreign.count), params.shape.row_bytes,
                        plan.chunk_bytes});
}

}  // namespace

void load_dispatch_kernels() {
  allow_shared_memory(dispatch_kernel);
  allow_shared_memory(finish_kernel);
}

void launch_dispatch(const DispatchParams& params, const DispatchPlan& plan, cudaStream_t stream) {
  dispatch_kernel<<<plan.num_blocks, DispatchRoles::kNumThreads, plan.shared_bytes, stream>>>(
      params, plan);
  check_launch("launch dispatch");
  if (params.shape.layout == Layout::kCompact) return;
  finish_kernel<<<plan.num_expand_blocks, 32 * DispatchRoles::kNumSendWarps, plan.shared_bytes,
                  stream>>>(params, plan);
  check_launch("launch the end of dispatch");
}

}  // namespace moelink::kernels
