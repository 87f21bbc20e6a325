// Memory of the CPU that GPUs reach, for those that cannot reach each other.
#pragma once

#include <memory>

#include "symm/cuda/gpu_memory.hpp"

namespace moelink {

// Collective. The regions of the kind that open_symmetric_memory chooses, pinned and shown to the
// GPUs.
std::shared_ptr<SymmetricMemory> open_cuda_pinned(Bootstrap& bootstrap, const GpuPlan& plan,
                                                  const Deadline& deadline);

}  // namespace moelink
