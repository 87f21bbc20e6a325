// What low latency operations have in common: their number, when halves are free, how they end.
#pragma once

#include <cstdint>

#include "device/line_wait.cuh"
#include "device/pass_stage.cuh"
#include "kernels/low_latency/params.hpp"

namespace moelink::kernels {

using device::Arrival;
using device::Domain;

__device__ inline Epoch epoch_of(const LowLatencyLink& link) {
  return Epoch(link.state->epoch + (sends(link.phase) ? 1 : 0) - link.age);
}

__device__ inline Operation operation_of(const LowLatencyLink& link) {
  return static_cast<Operation>(link.header.operation);
}

// For faults, operations of the low latency mode come after the last that counts by exchanges.
__device__ inline device::WaitTarget wait_target(const LowLatencyLink& link, Stage stage,
                                                 Rank peer) {
  return {operation_of(link), stage, peer, Epoch(link.domain.local->epoch + 1)};
}

__device__ inline device::LineTarget line_target(const LowLatencyLink& link, Stage stage, Rank peer,
                                                 Epoch epoch, device::OnLoss on_loss) {
  return {wait_target(link, stage, peer), epoch, on_loss};
}

// May change while the operation runs.
__device__ inline bool is_masked(const LowLatencyLink& link, int rank) {
  return device::DeviceWord<std::uint32_t>(link.masked[rank]).load(cuda::memory_order_relaxed) != 0;
}
__device__ inline void mask(const LowLatencyLink& link, int rank) {
  device::DeviceWord<std::uint32_t>(link.masked[rank]).store(1, cuda::memory_order_relaxed);
}

__device__ inline bool is_broken(const LowLatencyLink& link) {
  const device::DeviceWord<std::uint32_t> fault(link.domain.local->fault_is_claimed);
  return fault.load(cuda::memory_order_relaxed) != 0;
}

// Why a rank refuses its own call, as a fault has it in `expected` and `seen`.
struct Refusal {
  std::uint64_t expected = 0;
  std::uint64_t seen = 0;

  // The selection at `index` of the top-k list is no expert.
  static __device__ Refusal of_id(const LowLatencyLink& link, int index) {
    return {static_cast<std::uint64_t>(index) + 1, static_cast<std::uint64_t>(link.topk.id(index))};
  }
  // More selections of one expert than there can be rows of one rank.
  static __device__ Refusal of_repeats() { return {0, 1}; }
};

// The first thread of a rank that refuses says why.
__device__ inline void refuse(const LowLatencyLink& link, const Refusal& why) {
  device::raise_fault(link.domain, wait_target(link, Stage::kReceive, link.domain.rank),
                      device::FaultCause::kRefused, why.expected, why.seen);
}

// One thread: waits until `peer` has received the last operation on the half that `epoch` takes.
// False: the rank has a fault.
__device__ inline bool await_half(const LowLatencyLink& link, Epoch epoch, Rank peer) {
  if (epoch.value() <= kNumLowLatencyHalves) return true;
  const Epoch last(epoch.value() - kNumLowLatencyHalves);
  std::uint64_t* const word =
      link.domain.signal(link.domain.rank, low_latency_received_channel(epoch), peer);
  const device::WaitTarget target = wait_target(link, Stage::kSend, peer);
  const SignalValue received = SignalValue::of(last, kDone);
  // Relaxed in the common case: the word publishes nothing but that memory is free.
  if (received.reached_by(device::load_relaxed_sys(word))) return true;
  if (link.survival == Survival::kRaise) {
    return device::wait_for(link.domain, target, word, received);
  }
  device::WaitEnd end;
  if (!device::await_word(link.domain, target, word, received, end)) mask(link, peer.value());
  return true;
}

// All threads of a block: whether this rank may write to the half that `epoch` takes at its peers.
__device__ inline bool may_send(const LowLatencyLink& link, Epoch epoch) {
  int missing = threadIdx.x == 0 && is_broken(link) ? 1 : 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    if (i == link.domain.rank.value() || is_masked(link, i)) continue;
    if (!await_half(link, epoch, Rank(i))) missing = 1;
  }
  return __syncthreads_or(missing) == 0;
}

// With Survival::kMask a control message must not arrive before the rows: whoever has it can rely
// on them. All threads of a block, when it has sent its rows.
__device__ inline void note_rows_sent(const LowLatencyLink& link) {
  if (link.survival == Survival::kRaise) return;
  device::fence_sys();
  __syncthreads();
  if (threadIdx.x != 0) return;
  const device::DeviceWord<std::uint32_t> sent(link.state->num_sent);
  sent.fetch_add(1, cuda::memory_order_acq_rel);
}
// All threads of the block that sends control messages, after its own note_rows_sent(). False: the
// rank has a fault.
__device__ inline bool await_rows_sent(const LowLatencyLink& link) {
  if (link.survival == Survival::kRaise) return true;
  int failed = 0;
  if (threadIdx.x == 0) {
    const device::WaitTarget target = wait_target(link, Stage::kSend, link.domain.rank);
    if (!device::wait_for_blocks(link.domain, target, link.state->num_sent, gridDim.x)) failed = 1;
    device::fence_sys();
  }
  return __syncthreads_or(failed) == 0;
}

// All threads of a block, when it has done its part. The last block of a receiving launch tells the
// peers that they may write again.
__device__ inline void finish(const LowLatencyLink& link, Epoch epoch, Stage last_stage) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    // Relaxed: what counts is that this block has read its lines, whose loads have ended.
    const device::DeviceWord<std::uint32_t> done(link.state->num_done);
    is_last = done.fetch_add(1, cuda::memory_order_relaxed) + 1 == gridDim.x;
  }
  __syncthreads();
  if (!is_last) return;
  if (receives(link.phase) && !is_broken(link)) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
         i += static_cast<int>(blockDim.x)) {
      if (i == link.domain.rank.value() || is_masked(link, i)) continue;
      // Nothing was written for the peer: what it reads from this is that all has been read.
      std::uint64_t* const word =
          link.domain.signal(Rank(i), low_latency_received_channel(epoch), link.domain.rank);
      device::SystemWord<std::uint64_t>(*word).store(SignalValue::of(epoch, kDone).word(),
                                                     cuda::memory_order_relaxed);
    }
  }
  device::note_end(link.domain, last_stage);
  if (threadIdx.x != 0) return;
  link.state->num_done = 0;
  link.state->num_sent = 0;
  if (sends(link.phase)) link.state->epoch = epoch.value();
}

}  // namespace moelink::kernels
