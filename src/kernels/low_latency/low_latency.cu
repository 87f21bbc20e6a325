// Entries of the low latency kernels.
#include "device/previous_kernel.cuh"
#include "kernels/launch_check.hpp"
#include "kernels/low_latency/expand.cuh"
#include "kernels/low_latency/launch.hpp"
#include "kernels/low_latency/reduce.cuh"
#include "kernels/low_latency/return.cuh"
#include "kernels/low_latency/send.cuh"
#include "kernels/low_latency/shared_memory.hpp"

namespace moelink::kernels {
namespace {

static_assert(sizeof(TokenTargets) <= LowLatencyShared::kTargetsBytes);

template <class T>
__device__ T* at(std::byte* shared, std::size_t offset) {
  return reinterpret_cast<T*>(shared + offset);
}

__device__ Heard heard_in(std::byte* shared, const LowLatencyShared& parts, int num_local) {
  return {ControlBoard(shared + parts.heard, num_local), at<std::uint8_t>(shared, parts.is_there)};
}

template <class Line>
__global__ __launch_bounds__(LowLatencyRoles::kNumThreads, 1) void low_latency_dispatch_kernel(
    const __grid_constant__ LowLatencyDispatchParams params) {
  extern __shared__ __align__(16) std::byte shared[];
  const LowLatencyLink& link = params.link;
  const LowLatencyShared& parts = link.shared;
  device::await_previous_kernel();
  const Epoch epoch = epoch_of(link);
  device::pass_stage(link.domain, Stage::kRoute, epoch);  // the start of the operation
  if (sends(link.phase)) {
    send_half<Line>(params, epoch, ControlBoard(shared + parts.board, link.num_local),
                    TokenImage{at<TokenTargets>(shared, parts.targets), shared + parts.headers,
                               shared + parts.body});
    device::pass_stage(link.domain, Stage::kSend, epoch);
    __syncthreads();
  }
  if (receives(link.phase)) {
    receive_half<Line>(
        params, epoch,
        Incoming{heard_in(shared, parts, link.num_local), at<std::int32_t>(shared, parts.first_row),
                 at<std::uint32_t>(shared, parts.headers)});
  }
  finish(link, epoch, receives(link.phase) ? Stage::kReceive : Stage::kSend);
}

template <class Line>
__global__ __launch_bounds__(LowLatencyRoles::kNumThreads, 1) void low_latency_combine_kernel(
    const __grid_constant__ LowLatencyCombineParams params) {
  extern __shared__ __align__(16) std::byte shared[];
  const LowLatencyLink& link = params.link;
  const LowLatencyShared& parts = link.shared;
  const ControlBoard board(shared + parts.board, link.num_local);
  device::await_previous_kernel();
  const Epoch epoch = epoch_of(link);
  device::pass_stage(link.domain, Stage::kRoute, epoch);
  if (sends(link.phase)) {
    return_half<Line>(params, epoch, ControlBoard(shared + parts.heard, 0));
    device::pass_stage(link.domain, Stage::kSendBack, epoch);
  }
  if (receives(link.phase)) {
    reduce_half<Line>(params, epoch, heard_in(shared, parts, 0), board);
  }
  finish(link, epoch, receives(link.phase) ? Stage::kReduce : Stage::kSendBack);
}

}  // namespace

void load_low_latency_kernels() {
  allow_shared_memory(low_latency_dispatch_kernel<device::WholeLine>);
  allow_shared_memory(low_latency_dispatch_kernel<device::SplitLine>);
  allow_shared_memory(low_latency_combine_kernel<device::WholeLine>);
  allow_shared_memory(low_latency_combine_kernel<device::SplitLine>);
}

namespace {

// A kernel for each line format.
template <class Params>
struct KernelPair {
  void (*whole)(Params);
  void (*split)(Params);
};

template <class Params>
void launch(const KernelPair<Params>& kernels, const Params& params, int num_blocks,
            cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(num_blocks));
  config.blockDim = dim3(LowLatencyRoles::kNumThreads);
  config.dynamicSmemBytes = params.link.shared.total;
  config.stream = stream;
  const bool is_whole = params.link.area.format == LineFormat::kWhole;
  launch_early(is_whole ? kernels.whole : kernels.split, config, "launch a low latency operation",
               params);
}

}  // namespace

void launch_low_latency(const LowLatencyDispatchParams& params, int num_blocks,
                        cudaStream_t stream) {
  launch<LowLatencyDispatchParams>({low_latency_dispatch_kernel<device::WholeLine>,
                                    low_latency_dispatch_kernel<device::SplitLine>},
                                   params, num_blocks, stream);
}

void launch_low_latency(const LowLatencyCombineParams& params, int num_blocks,
                        cudaStream_t stream) {
  launch<LowLatencyCombineParams>({low_latency_combine_kernel<device::WholeLine>,
                                   low_latency_combine_kernel<device::SplitLine>},
                                  params, num_blocks, stream);
}

}  // namespace moelink::kernels
