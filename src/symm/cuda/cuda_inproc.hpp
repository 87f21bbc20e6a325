// Memory of GPUs whose ranks are threads of one process.
#pragma once

#include <memory>

#include "symm/cuda/gpu_memory.hpp"

namespace moelink {

// Collective. All ranks see each region at one address, which kernels of all their devices may use.
std::shared_ptr<SymmetricMemory> open_cuda_inproc(Bootstrap& bootstrap, const GpuPlan& plan,
                                                  const Deadline& deadline);

}  // namespace moelink
