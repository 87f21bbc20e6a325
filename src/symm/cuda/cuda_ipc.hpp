// Memory of GPUs whose ranks are processes, passed as handles of CUDA IPC.
#pragma once

#include <memory>

#include "symm/cuda/gpu_memory.hpp"

namespace moelink {

// Collective. No two ranks may share a process. For GPUs that cannot do what cuda_vmm needs: CUDA
// does not promise, as it does there, that memory stays mapped when the rank that made it has gone.
std::shared_ptr<SymmetricMemory> open_cuda_ipc(Bootstrap& bootstrap, const GpuPlan& plan,
                                               const Deadline& deadline);

}  // namespace moelink
