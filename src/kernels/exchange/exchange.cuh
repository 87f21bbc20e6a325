// The start of every operation: block 0 tells the peers about the call and hears about theirs.
#pragma once

#include <cstdint>

#include "device/domain.hpp"
#include "device/memory_order.cuh"
#include "device/wait.cuh"
#include "protocol/counts.hpp"
#include "protocol/signal.hpp"

namespace moelink::kernels {

using device::Domain;
using device::Verdict;

// The operation that the grid carries out.
__device__ inline Epoch current_epoch(const Domain& domain) {
  return Epoch(domain.local->epoch + 1);
}

// All threads of one block: tells all ranks that operation `epoch` has passed `channel`.
__device__ inline void signal_all(const Domain& domain, SignalChannel channel, Epoch epoch) {
  const SignalValue done = SignalValue::of(epoch, kDone);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < domain.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    std::uint64_t* const word = domain.signal(Rank(i), channel, domain.rank);
    device::SystemWord<std::uint64_t>(*word).store(done.word(), cuda::memory_order_release);
  }
}

// All threads of block 0. Writes `mine` and `num_counts` counts into every peer's region, then
// tells them. Release: publishes also everything that earlier kernels on this stream have written.
__device__ inline void publish_call(const Domain& domain, const ExchangeBlock& mine,
                                    const std::int32_t* counts, int num_counts) {
  const Epoch epoch = current_epoch(domain);
  constexpr int kWords = sizeof(ExchangeBlock) / sizeof(std::uint64_t);
  const auto* const words = reinterpret_cast<const std::uint64_t*>(&mine);
#pragma unroll 1
  for (Rank peer(0); peer.value() < domain.num_ranks(); peer = peer.next()) {
    auto* const block = reinterpret_cast<std::uint64_t*>(domain.exchange(peer, epoch, domain.rank));
    std::int32_t* const row = domain.count_row(peer, epoch, domain.rank);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kWords; i += static_cast<int>(blockDim.x)) {
      block[i] = words[i];
    }
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < num_counts; i += static_cast<int>(blockDim.x)) {
      row[i] = counts[i];
    }
  }
  __syncthreads();
  signal_all(domain, SignalChannel::kExchanged, epoch);
}

// All threads of a block: whether this rank has given up in an earlier operation, and takes no
// part.
__device__ inline bool has_fault(const Domain& domain) {
  return __syncthreads_or(threadIdx.x == 0 && domain.local->fault_is_claimed != 0) != 0;
}

// All threads of one block. True at all of them once every rank's word of `channel` has reached
// `progress` of the operation; false at all of them if one did not come.
__device__ inline bool await_all(const Domain& domain, Operation operation, Stage stage,
                                 SignalChannel channel, std::uint32_t progress = kDone) {
  const Epoch epoch = current_epoch(domain);
  int missing = 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < domain.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    const device::WaitTarget target{operation, stage, Rank(i), epoch};
    std::uint64_t* const word = domain.signal(domain.rank, channel, Rank(i));
    if (!device::wait_for(domain, target, word, SignalValue::of(epoch, progress))) missing = 1;
  }
  return __syncthreads_or(missing) == 0;
}

// All threads of block 0, after the peers' blocks have arrived: 1 at a thread that finds the ranks'
// calls to differ, or a selection that is no expert. All ranks come to the same answer.
__device__ inline int calls_differ(const Domain& domain) {
  constexpr int kNumFields = static_cast<int>(kNumDigestFields);
  const Epoch epoch = current_epoch(domain);
  const ExchangeBlock& first = *domain.exchange(domain.rank, epoch, Rank(0));
  int differs = 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < domain.num_ranks() * kNumFields;
       i += static_cast<int>(blockDim.x)) {
    const ExchangeBlock& other = *domain.exchange(domain.rank, epoch, Rank(i / kNumFields));
    const auto field = static_cast<DigestField>(i % kNumFields);
    if (first.digest.get(field) != other.digest.get(field)) differs = 1;
    if (other.bad_selection != 0) differs = 1;
  }
  return differs;
}

__device__ inline bool calls_agree(const Domain& domain) {
  return __syncthreads_or(calls_differ(domain)) == 0;
}

// Block 0 tells the other blocks how the exchange has ended. Release: publishes what it has
// written for them.
__device__ inline void release_blocks(const Domain& domain, Verdict verdict) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  domain.local->verdict = verdict;
  const device::DeviceWord<std::uint64_t> word(domain.local->exchanged);
  word.store(current_epoch(domain).value(), cuda::memory_order_release);
}

// All threads of a block: waits until block 0 has released it.
__device__ inline Verdict await_release(const Domain& domain, Operation operation) {
  __shared__ Verdict verdict;
  if (threadIdx.x == 0) {
    const Epoch epoch = current_epoch(domain);
    const device::WaitTarget target{operation, Stage::kExchange, domain.rank, epoch};
    const bool released =
        device::wait_for_blocks(domain, target, domain.local->exchanged, epoch.value());
    verdict = released ? domain.local->verdict : Verdict::kGaveUp;
  }
  __syncthreads();
  return verdict;
}

// All threads of a block, when it has done its part. True in the block that is the last to come:
// what all blocks have written is visible to it then. That block must call end_operation().
__device__ inline bool is_last_block(const Domain& domain) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    // Release: this block's rows, before the signal of the last block, which acquires them.
    const device::DeviceWord<std::uint32_t> done(domain.local->num_done);
    last = done.fetch_add(1, cuda::memory_order_acq_rel) + 1 == gridDim.x;
  }
  __syncthreads();
  return last;
}

// The last block, after its last use of current_epoch().
__device__ inline void end_operation(const Domain& domain) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  domain.local->num_counted = 0;
  domain.local->num_placed = 0;
  domain.local->num_done = 0;
  domain.local->bad_selection = 0;
  domain.local->epoch += 1;
}

}  // namespace moelink::kernels
