// Barriers of some of a block's warps.
#pragma once

namespace moelink::device {

// All lanes of the warps that meet there. `barrier`: 1 to 15; 0 is that of __syncthreads().
__device__ inline void meet(int barrier, int num_threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}

}  // namespace moelink::device
