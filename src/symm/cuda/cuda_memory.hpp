// Opens symmetric memory that kernels of GPUs read and write.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "symm/symmetric_memory.hpp"

namespace moelink {

// Collective. One region per rank, in the memory of its GPU where possible, mapped at every rank:
// region() is an address for kernels and copies of `device`, a number in this process. Chooses
// cuda_inproc when all ranks share this process; for processes of one host cuda_vmm, or cuda_ipc
// where a GPU cannot do it, as Environment::cuda_memory wishes; cuda_fabric, of one host too, only
// if that wishes it; cuda_pinned (in memory of the CPU) where GPUs have no access to each other.
// Leaves the thread's current device as it was.
//
// Throws, alike at all ranks, Error(kInvalidArgument) if a device does not exist or ranks ask for
// different sizes or for nothing, Error(kUnsupported) naming the ranks that cannot share memory in
// the way that is wished, Error(kSystem) with rank, device and bytes if CUDA refuses.
//
// Kernels of this rank that use the memory must have ended when its last holder drops it.
std::shared_ptr<SymmetricMemory> open_cuda_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                  int device, const Deadline& deadline);

// The same with a wish in place of that of the environment: "auto", "vmm", "fabric", "ipc" or
// "pinned".
std::shared_ptr<SymmetricMemory> open_cuda_memory_as(const std::string& wish, Bootstrap& bootstrap,
                                                     std::size_t size_bytes, int device,
                                                     const Deadline& deadline);

}  // namespace moelink
