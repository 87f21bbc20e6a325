// Launching of one half, or both, of a low latency operation.
#pragma once

#include "backend/cuda/cuda_context.hpp"
#include "kernels/low_latency/launch.hpp"

namespace moelink {

// `params`: of operation `number`, but for what depends on the phase and follows from the shape.
template <class Params>
void launch_phase(const CudaContext& context, Params params, std::uint64_t number,
                  kernels::LowLatencyPhase phase, const StreamOptions& options,
                  cudaStream_t stream) {
  params.link.phase = phase;
  if (!kernels::sends(phase)) params.link.age = context.low_latency.num_sent - number;
  const int num_blocks = kernels::plan_low_latency(params, low_latency_blocks(context, options));
  kernels::launch_low_latency(params, num_blocks, stream);
}

}  // namespace moelink
