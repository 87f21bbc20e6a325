// Launching of the dispatch kernels, and how they are spread over the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "device/launch_limits.hpp"
#include "kernels/dispatch/params.hpp"

namespace moelink::kernels {

// Throws Error(kUnsupported) if the counters of so many ranks and experts do not fit the shared
// memory of a block.
DispatchPlan plan_dispatch(const DispatchParams& params, const device::LaunchLimits& limits);

// Loads the kernels, which otherwise happens, with waits for running kernels, at the first launch.
void load_dispatch_kernels();

// Enqueues the kernels of one dispatch.
void launch_dispatch(const DispatchParams& params, const DispatchPlan& plan, cudaStream_t stream);

}  // namespace moelink::kernels
