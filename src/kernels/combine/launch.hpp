// Launching of the combine kernel, and how it is spread over the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "device/launch_limits.hpp"
#include "kernels/combine/params.hpp"

namespace moelink::kernels {

CombinePlan plan_combine(const CombineParams& params, const device::LaunchLimits& limits);

// Throws Error(kInternal): there is no instance for `dtype`, which validation should have refused.
[[noreturn]] void fail_without_instance(DType dtype);

// Loads the kernels; see load_dispatch_kernels().
void load_combine_kernels();

void launch_combine(const CombineParams& params, const CombinePlan& plan, cudaStream_t stream);

}  // namespace moelink::kernels
