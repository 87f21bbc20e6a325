// The one primitive with which a kernel waits for another rank or block.
#pragma once

#include <cstdint>

#include "device/domain.hpp"
#include "device/memory_order.cuh"
#include "protocol/signal.hpp"

namespace moelink::device {

// What a wait is for; becomes the text of the error if it fails.
struct WaitTarget {
  Operation operation;
  Stage stage;
  Rank peer;
  Epoch epoch;
};

// Looks after the clock and the host, and after the peer, each so many looks at the word.
constexpr int kLooksPerClock = 64;
constexpr int kClocksPerCheck = 16;
// Reads of the host's memory take turns, a microsecond each. So of all that wait on a rank one
// looks there, once in such a time, and leaves in device memory what it has seen.
constexpr std::uint64_t kHostLookNs = 500'000;
constexpr std::uint64_t kWaitsAreOver = ~std::uint64_t{0};
// Between the looks of a wait that has lasted a while: hundreds of warps that look without pause
// leave the memory that they look at no time for what they wait for.
constexpr unsigned kNapNs = 200;

// What runs rarely is called, not inlined, here and below: kernels of small batches wait for their
// instructions more than for anything else.

// The first caller of a rank fills its fault and tells the peers that it takes no further part.
__device__ __noinline__ static void raise_fault(const Domain& domain, WaitTarget target,
                                                FaultCause cause, std::uint64_t expected,
                                                std::uint64_t seen) {
  if (atomicExch(&domain.local->fault_is_claimed, 1U) != 0) return;
  Fault& fault = *domain.wait.fault;
  fault.cause = cause;
  fault.operation = target.operation;
  fault.stage = target.stage;
  fault.peer = target.peer.value();
  fault.epoch = target.epoch;
  fault.expected = expected;
  fault.seen = seen;
  FaultRecord& record = *domain.fault_record(domain.rank);
  record.text_bytes = 0;
  record.first_missed = target.epoch;
  // Release: publishes the record to the peers, the fault to the host.
  SystemWord<std::uint32_t>(record.raised).store(1, cuda::memory_order_release);
  SystemWord<std::uint32_t>(fault.raised).store(1, cuda::memory_order_release);
}

__device__ inline bool has_given_up(const Domain& domain, const WaitTarget& target) {
  FaultRecord& record = *domain.fault_record(target.peer);
  if (SystemWord<std::uint32_t>(record.raised).load(cuda::memory_order_acquire) == 0) return false;
  return record.first_missed <= target.epoch;
}

__device__ inline bool is_cancelled(const Domain& domain, std::uint64_t now) {
  const DeviceWord<std::uint64_t> next_look(domain.local->next_host_look_ns);
  std::uint64_t due = next_look.load(cuda::memory_order_relaxed);
  if (due == kWaitsAreOver) return true;
  if (now < due) return false;
  if (!next_look.compare_exchange_strong(due, now + kHostLookNs, cuda::memory_order_relaxed)) {
    return false;
  }
  const SystemWord<std::uint32_t> cancelled(*domain.wait.cancelled);
  if (cancelled.load(cuda::memory_order_relaxed) == 0) return false;
  next_look.store(kWaitsAreOver, cuda::memory_order_relaxed);
  return true;
}

// Whether a wait that has lasted a while goes on, or why it ends.
enum class WaitState : std::uint32_t { kGoesOn, kTimeout, kPeerGaveUp, kCancelled };

__device__ inline FaultCause cause_of(WaitState state) {
  if (state == WaitState::kPeerGaveUp) return FaultCause::kPeerGaveUp;
  return state == WaitState::kCancelled ? FaultCause::kCancelled : FaultCause::kTimeout;
}

__device__ __noinline__ static WaitState look_around(const Domain& domain, WaitTarget target,
                                                     std::uint64_t start_ns, int round) {
  const std::uint64_t now = now_ns();
  if (now - start_ns > domain.wait.timeout_ns) return WaitState::kTimeout;
  if (is_cancelled(domain, now)) return WaitState::kCancelled;
  if (round % kClocksPerCheck != kClocksPerCheck - 1) return WaitState::kGoesOn;
  const bool lost = target.peer != domain.rank && has_given_up(domain, target);
  return lost ? WaitState::kPeerGaveUp : WaitState::kGoesOn;
}

// How a wait that failed has ended.
struct WaitEnd {
  FaultCause cause;
  std::uint64_t seen;
};

// Returns true once `word` has reached `value` (acquire: what its writer published is visible to
// this thread), false after the deadline, or when the peer or the host gives up.
__device__ inline bool await_word(const Domain& domain, const WaitTarget& target,
                                  std::uint64_t* word, SignalValue value, WaitEnd& end) {
  std::uint64_t start_ns = 0;
  for (int round = 0;; ++round) {
#pragma unroll 1
    for (int look = 0; look < kLooksPerClock; ++look) {
      end.seen = load_relaxed_sys(word);
      if (!value.reached_by(end.seen)) continue;
      load_acquire_sys(word);  // orders; every look would empty the cache
      return true;
    }
    if (start_ns == 0) start_ns = now_ns();
    const WaitState state = look_around(domain, target, start_ns, round);
    if (state != WaitState::kGoesOn) {
      end.cause = cause_of(state);
      return false;
    }
    __nanosleep(kNapNs);
  }
}

// The same; false: the fault is raised.
__device__ inline bool wait_for(const Domain& domain, const WaitTarget& target, std::uint64_t* word,
                                SignalValue value) {
  WaitEnd end;
  if (await_word(domain, target, word, value, end)) return true;
  raise_fault(domain, target, end.cause, value.word(), end.seen);
  return false;
}

// Waits of blocks of one grid for each other may last as long as the waits for peers that the other
// blocks are in, and somewhat longer.
constexpr std::uint64_t kBlockPatience = 2;

// Returns true once `counter`, which other blocks of this grid advance, has reached `value`
// (acquire), false when a block of this rank has raised a fault, or when the others do not come:
// then not all blocks of the grid are resident, and a fault is raised in the name of this rank.
template <class T>
__device__ bool wait_for_blocks(const Domain& domain, const WaitTarget& target, T& counter,
                                T value) {
  const DeviceWord<T> word(counter);
  std::uint64_t start_ns = 0;
  for (;;) {
#pragma unroll 1
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (word.load(cuda::memory_order_relaxed) < value) continue;
      word.load(cuda::memory_order_acquire);
      return true;
    }
    if (start_ns == 0) start_ns = now_ns();
    const DeviceWord<std::uint32_t> fault(domain.local->fault_is_claimed);
    if (fault.load(cuda::memory_order_relaxed) != 0) return false;
    if (now_ns() - start_ns < kBlockPatience * domain.wait.timeout_ns) {
      __nanosleep(kNapNs);
      continue;
    }
    raise_fault(domain, target, FaultCause::kTimeout, value, word.load(cuda::memory_order_relaxed));
    return false;
  }
}

}  // namespace moelink::device
