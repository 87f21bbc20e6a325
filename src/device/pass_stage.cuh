// What happens when a block has passed a stage: the clock notes it, a stress test holds it up.
#pragma once

#include "device/domain.hpp"
#include "device/memory_order.cuh"

namespace moelink::device {

// A number that looks random, the same for the same operation, rank, stage and block.
__device__ inline std::uint64_t stage_hash(const Domain& domain, Stage stage, Epoch epoch) {
  std::uint64_t hash = epoch.value() * 0x9e3779b97f4a7c15U;
  hash ^= (static_cast<std::uint64_t>(domain.rank.value()) << 40) ^
          (static_cast<std::uint64_t>(stage) << 32) ^ blockIdx.x;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9U;
  return (hash ^ (hash >> 27)) * 0x94d049bb133111ebU >> 33;
}

// Thread 0 of a block notes when the stage has ended, if somebody listens.
__device__ inline void note_end(const Domain& domain, Stage stage) {
  if (domain.stage_ends == nullptr || threadIdx.x != 0) return;
  domain.stage_ends[static_cast<int>(stage)] = now_ns();
}

// Called, not inlined: see wait.cuh.
__device__ __noinline__ static void hold_up(const Domain& domain, Stage stage, Epoch epoch) {
  const std::uint64_t end = now_ns() + stage_hash(domain, stage, epoch) % domain.stress_delay_ns;
  while (now_ns() < end) {
  }
}

// Any threads of a block, in operation `epoch`; thread 0 counts. Costs two comparisons when nobody
// listens.
__device__ inline void pass_stage(const Domain& domain, Stage stage, Epoch epoch) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) note_end(domain, stage);
  if (domain.stress_delay_ns != 0) hold_up(domain, stage, epoch);
}
__device__ inline void pass_stage(const Domain& domain, Stage stage) {
  pass_stage(domain, stage, Epoch(domain.local->epoch));
}

}  // namespace moelink::device
