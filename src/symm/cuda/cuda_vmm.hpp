// Memory of GPUs whose ranks are processes, passed as file descriptors or fabric handles.
#pragma once

#include <memory>

#include "symm/cuda/device_allocation.hpp"
#include "symm/cuda/gpu_memory.hpp"

namespace moelink {

// Collective. Ranks may share a process. Memory of a rank that has gone stays as long as others map
// it. `sharing`: kDescriptor makes cuda_vmm, kFabric cuda_fabric.
std::shared_ptr<SymmetricMemory> open_cuda_vmm(Bootstrap& bootstrap, const GpuPlan& plan,
                                               Sharing sharing, const Deadline& deadline);

}  // namespace moelink
