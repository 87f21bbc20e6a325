// Memory of GPUs whose ranks are processes, passed as file descriptors.
#pragma once

#include <memory>

#include "symm/cuda/gpu_memory.hpp"

namespace moelink {

// Collective. Ranks may share a process. Memory of a rank that has gone stays as long as others map
// it.
std::shared_ptr<SymmetricMemory> open_cuda_vmm(Bootstrap& bootstrap, const GpuPlan& plan,
                                               const Deadline& deadline);

}  // namespace moelink
