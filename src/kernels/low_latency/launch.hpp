// Launching of the low latency kernels, and how they are spread over the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "device/launch_limits.hpp"
#include "kernels/low_latency/params.hpp"

namespace moelink::kernels {

// Fills in what follows from the shape, and returns how many of `num_blocks` blocks to use.
int plan_low_latency(LowLatencyDispatchParams& params, int num_blocks);
int plan_low_latency(LowLatencyCombineParams& params, int num_blocks);

// Loads the kernels, which otherwise happens, with waits for running kernels, at the first launch.
void load_low_latency_kernels();

void launch_low_latency(const LowLatencyDispatchParams& params, int num_blocks,
                        cudaStream_t stream);
void launch_low_latency(const LowLatencyCombineParams& params, int num_blocks, cudaStream_t stream);

}  // namespace moelink::kernels
