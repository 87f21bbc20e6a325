// Starting while the kernel before ends.
#pragma once

namespace moelink::device {

// All threads, first of all: waits until the kernel before on the stream has ended and what it has
// written is visible. Launched without the permission to start early, that is so already. There is
// no call by which a kernel lets the next one start before it ends: blocks that wait here would
// keep other ranks' kernels off a GPU that ranks share.
__device__ inline void await_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace moelink::device
