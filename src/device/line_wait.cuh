// How a warp waits for lines.
#pragma once

#include <cstdint>

#include "device/line.cuh"
#include "device/wait.cuh"

namespace moelink::device {

enum class Arrival {
  kArrived,
  kLost,    // the peer is late or has given up, and the wait is one that outlives it
  kGaveUp,  // the rank has a fault
};

// What becomes of a wait whose peer is lost.
enum class OnLoss { kRaise, kReport };

struct LineTarget {
  WaitTarget wait;  // its epoch: the next operation that counts by exchanges
  Epoch epoch;      // that the lines carry
  OnLoss on_loss;
};

// One lane: how a wait that is over ends.
__device__ __noinline__ static Arrival end_of_wait(const Domain& domain, LineTarget target,
                                                   FaultCause cause, std::uint64_t seen) {
  if (target.on_loss == OnLoss::kReport && cause != FaultCause::kCancelled) return Arrival::kLost;
  raise_fault(domain, target.wait, cause, SignalValue::of(target.epoch, kDone).word(),
              SignalValue::of(Epoch(seen), kDone).word());
  return Arrival::kGaveUp;
}

// Lines that a warp waits for: lane l has vectors l, l + 32, ..., which must be whole lines.
template <class Line, int kSteps>
struct LineBatch {
  uint4 values[kSteps];

  // Starts loading the first `count` vectors at `from`, vector 0 being number `first` of a message.
  __device__ void load(const uint4* from, int count) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int i = step * warpSize + static_cast<int>(threadIdx.x % warpSize);
      if (i < count) values[step] = load_vector(from + i);
    }
  }
  // True at all lanes once all vectors have arrived.
  __device__ bool have_arrived(int count, Epoch epoch) const {
    bool arrived = true;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int i = step * warpSize + static_cast<int>(threadIdx.x % warpSize);
      if (i < count) arrived = arrived && Line::has_arrived(values[step], i, epoch);
    }
    return __all_sync(~0U, arrived) != 0;
  }
  // An epoch that is not the awaited one, if the calling lane has one.
  __device__ std::uint64_t other_epoch(int count, Epoch epoch) const {
    std::uint64_t seen = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int i = step * warpSize + static_cast<int>(threadIdx.x % warpSize);
      if (i < count && !Line::has_arrived(values[step], i, epoch)) {
        seen = Line::seen(values[step], i);
      }
    }
    return seen;
  }
};

// One warp, after batch.load(from, count): goes on loading until the lines have arrived.
template <class Line, int kSteps>
__device__ Arrival await_lines(const Domain& domain, const LineTarget& target, const uint4* from,
                               int count, LineBatch<Line, kSteps>& batch) {
  std::uint64_t start_ns = 0;
#pragma unroll 1
  for (int round = 0;; ++round) {
#pragma unroll 1
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (batch.have_arrived(count, target.epoch)) return Arrival::kArrived;
      batch.load(from, count);
    }
    if (start_ns == 0) start_ns = now_ns();
    const DeviceWord<std::uint32_t> fault(domain.local->fault_is_claimed);
    const bool is_broken = fault.load(cuda::memory_order_relaxed) != 0;
    const WaitState state =
        is_broken ? WaitState::kTimeout : look_around(domain, target.wait, start_ns, round);
    const unsigned lanes = __ballot_sync(~0U, state != WaitState::kGoesOn);
    if (lanes == 0) {
      __nanosleep(kNapNs);
      continue;
    }
    // A peer may have sent these lines before it gave up.
    batch.load(from, count);
    if (batch.have_arrived(count, target.epoch)) return Arrival::kArrived;
    const std::uint64_t seen = batch.other_epoch(count, target.epoch);
    const int speaker = __ffs(static_cast<int>(lanes)) - 1;
    Arrival arrival = Arrival::kGaveUp;
    if (static_cast<int>(threadIdx.x % warpSize) == speaker && !is_broken) {
      arrival = end_of_wait(domain, target, cause_of(state), seen);
    }
    return static_cast<Arrival>(__shfl_sync(~0U, static_cast<int>(arrival), speaker));
  }
}

}  // namespace moelink::device
