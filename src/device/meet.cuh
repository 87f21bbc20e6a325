// Barriers of some of a block's warps.
#pragma once

namespace moelink::device {

// `barrier`: 1 to 15, as 0 is that of __syncthreads(). `num_threads`: those that meet there and
// those that only arrive. What is written before is visible to whoever meets.
__device__ inline void meet(int barrier, int num_threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}
__device__ inline void arrive(int barrier, int num_threads) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}

}  // namespace moelink::device
