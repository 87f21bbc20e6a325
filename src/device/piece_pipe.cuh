// One warp's way of carrying row pieces from one place to several, with loads running ahead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/ptx>

namespace moelink::device {

// A ring of kStages pieces in shared memory. All functions are called by all lanes of one warp.
// For steps 0, 1, ...: load(step) in order, kStages - 1 steps ahead of await(step), put(), put(),
// ..., commit(); load() with 0 bytes where no step is left. Addresses and sizes are multiples of
// 16 bytes. After drain(), and a fence, what was put is visible to whom this thread tells.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// Bulk copies: one lane starts each, the copy engine of the SM does the rest.
template <int kStages>
class PiecePipe {
 public:
  static constexpr std::size_t kBarrierBytes = kStages * sizeof(std::uint64_t);

  // `pieces`: kStages * piece_bytes of shared memory, 16-byte aligned.
  __device__ PiecePipe(std::byte* pieces, std::size_t piece_bytes, std::uint64_t* barriers)
      : pieces_(pieces),
        piece_bytes_(static_cast<std::uint32_t>(piece_bytes)),
        barriers_(barriers) {
    if (is_leader()) {
      for (int i = 0; i < kStages; ++i) cuda::ptx::mbarrier_init(&barriers_[i], 1);
      cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
    }
    __syncwarp();
  }

  __device__ void load(std::uint32_t step, const std::byte* from, std::size_t bytes) {
    // All pieces put so far but those of the last step have left shared memory.
    cuda::ptx::cp_async_bulk_wait_group_read(cuda::ptx::n32_t<1>());
    __syncwarp();
    if (bytes == 0 || !is_leader()) return;
    std::uint64_t* const barrier = &barriers_[step % kStages];
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta,
                                         cuda::ptx::space_shared, barrier,
                                         static_cast<std::uint32_t>(bytes));
    cuda::ptx::cp_async_bulk(cuda::ptx::space_cluster, cuda::ptx::space_global, piece(step), from,
                             static_cast<std::uint32_t>(bytes), barrier);
  }

  __device__ void await(std::uint32_t step) {
    const auto parity = step / kStages & 1U;
    while (!cuda::ptx::mbarrier_try_wait_parity(&barriers_[step % kStages], parity)) {
    }
  }

  // Sends the piece to the calling lane's place, if it has one.
  __device__ void put(std::uint32_t step, std::byte* to, std::size_t bytes) {
    if (to == nullptr) return;
    cuda::ptx::cp_async_bulk(cuda::ptx::space_global, cuda::ptx::space_shared, to, piece(step),
                             static_cast<std::uint32_t>(bytes));
  }

  __device__ void commit() { cuda::ptx::cp_async_bulk_commit_group(); }

  __device__ void drain() {
    cuda::ptx::cp_async_bulk_wait_group(cuda::ptx::n32_t<0>());
    __syncwarp();
  }

  // Where the piece lies from await(step) to load(step + kStages - 1): for reading.
  __device__ std::byte* piece(std::uint32_t step) const {
    return pieces_ + step % kStages * piece_bytes_;
  }

 private:
  static __device__ bool is_leader() { return threadIdx.x % warpSize == 0; }

  std::byte* pieces_;
  std::uint32_t piece_bytes_;
  std::uint64_t* barriers_;
};

#else

// Before Hopper: the lanes copy 16 bytes each.
template <int kStages>
class PiecePipe {
 public:
  static constexpr std::size_t kBarrierBytes = kStages * sizeof(std::uint64_t);

  __device__ PiecePipe(std::byte* pieces, std::size_t piece_bytes, std::uint64_t*)
      : pieces_(pieces), piece_bytes_(static_cast<std::uint32_t>(piece_bytes)) {}

  __device__ void load(std::uint32_t step, const std::byte* from, std::size_t bytes) {
    __syncwarp();  // all lanes have put what the stage held
    for (std::size_t i = lane() * kVector; i < bytes; i += warpSize * kVector) {
      const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(piece(step) + i));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from + i));
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  __device__ void await(std::uint32_t) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncwarp();
  }

  __device__ void put(std::uint32_t step, std::byte* to, std::size_t bytes) {
    const auto address = reinterpret_cast<std::uint64_t>(to);
    for (unsigned left = __ballot_sync(~0U, to != nullptr); left != 0; left &= left - 1) {
      auto* const target = reinterpret_cast<std::byte*>(
          __shfl_sync(~0U, address, __ffs(static_cast<int>(left)) - 1));
      for (std::size_t i = lane() * kVector; i < bytes; i += warpSize * kVector) {
        *reinterpret_cast<uint4*>(target + i) = *reinterpret_cast<const uint4*>(piece(step) + i);
      }
    }
  }

  __device__ void commit() {}
  __device__ void drain() { __syncwarp(); }

  __device__ std::byte* piece(std::uint32_t step) const {
    return pieces_ + step % kStages * piece_bytes_;
  }

 private:
  static constexpr std::size_t kVector = 16;

  static __device__ std::size_t lane() { return threadIdx.x % warpSize; }

  std::byte* pieces_;
  std::uint32_t piece_bytes_;
};

#endif

}  // namespace moelink::device
