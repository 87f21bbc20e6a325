// Ordered access to words that other ranks, other blocks or the host share.
#pragma once

#include <cstdint>
#include <cuda/atomic>

namespace moelink::device {

template <class T>
using SystemWord = cuda::atomic_ref<T, cuda::thread_scope_system>;
template <class T>
using DeviceWord = cuda::atomic_ref<T, cuda::thread_scope_device>;

// Reads a word that its writer publishes with release order at system scope.
__device__ inline std::uint64_t load_acquire_sys(std::uint64_t* word) {
  return SystemWord<std::uint64_t>(*word).load(cuda::memory_order_acquire);
}
__device__ inline std::uint64_t load_relaxed_sys(std::uint64_t* word) {
  return SystemWord<std::uint64_t>(*word).load(cuda::memory_order_relaxed);
}

// Orders everything that this thread has written, or seen written, before what it writes next, for
// all GPUs and the host.
__device__ inline void fence_sys() { cuda::atomic_thread_fence(cuda::memory_order_acq_rel); }

// Between this thread's ordinary accesses and those of the bulk copy engine, in either direction.
__device__ inline void fence_bulk_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
}

// Nanoseconds of a clock that all blocks of the GPU share.
__device__ inline std::uint64_t now_ns() {
  std::uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

}  // namespace moelink::device
