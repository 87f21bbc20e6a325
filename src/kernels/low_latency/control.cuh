// Control messages: what a rank says about its operation to each peer, whether it sends rows or
// not.
#pragma once

#include <cstdint>

#include "kernels/low_latency/flow.cuh"
#include "kernels/low_latency/roles.hpp"
#include "kernels/low_latency/route.cuh"

namespace moelink::kernels {

constexpr int kControlSteps = 2;
constexpr int kControlVectors = kControlSteps * 32;
constexpr int kHeaderWords = sizeof(LowLatencyHeader) / kLineWordBytes;

// Vectors of a control message with `num_counts` counts.
template <class Line>
__device__ int control_vectors(int num_counts) {
  return static_cast<int>(num_lines(Line::kFormat, LineArea::control_bytes(num_counts))) *
         kVectorsPerLine;
}

// Word `i` of the message that begins with `header`; `counts` may be null if there are none.
__device__ inline std::uint64_t control_word(const LowLatencyHeader& header,
                                             const std::int32_t* counts, int num_counts, int i) {
  if (i < kHeaderWords) {
    switch (i) {
      case 0:
        return header.epoch;
      case 1:
        return device::word_of(header.operation, header.format);
      case 2:
        return device::word_of(header.num_tokens, header.has_weights);
      default:
        return device::word_of(header.num_experts, header.refused);
    }
  }
  const int at = (i - kHeaderWords) * 2;
  const auto count = [&](int n) {
    return n < num_counts ? static_cast<std::uint32_t>(counts[n]) : 0U;
  };
  return device::word_of(count(at), count(at + 1));
}

// One warp: sends `header` and the counts to `peer`.
template <class Line>
__device__ void send_control(const LowLatencyLink& link, Rank peer, const LowLatencyHeader& header,
                             const std::int32_t* counts, int num_counts) {
  const Epoch epoch(header.epoch);
  auto* const to = reinterpret_cast<uint4*>(
      link.area_of(peer) + link.lines.control_offset(epoch, link.domain.rank.value()));
  const int count = control_vectors<Line>(num_counts);
  for (int v = static_cast<int>(threadIdx.x % warpSize); v < count; v += warpSize) {
    const LineWords words = words_of_vector(Line::kFormat, v);
    const int i = static_cast<int>(words.first / kLineWordBytes);
    device::store_vector(to + v,
                         Line::seal(control_word(header, counts, num_counts, i),
                                    control_word(header, counts, num_counts, i + 1), v, epoch));
  }
}

// Word `i` of a control message that has arrived.
__device__ inline void keep_control_word(int i, std::uint64_t word, LowLatencyHeader& header,
                                         std::int32_t* counts, int num_counts) {
  if (i < kHeaderWords) {
    reinterpret_cast<std::uint64_t*>(&header)[i] = word;
    return;
  }
  const int at = (i - kHeaderWords) * 2;
  if (at < num_counts) counts[at] = static_cast<std::int32_t>(word);
  if (at + 1 < num_counts) counts[at + 1] = static_cast<std::int32_t>(word >> 32);
}

// One warp: waits for the message of `source` and keeps it in `header` and `counts`.
template <class Line>
__device__ Arrival await_control(const LowLatencyLink& link, const device::LineTarget& target,
                                 LowLatencyHeader& header, std::int32_t* counts, int num_counts) {
  const Rank self = link.domain.rank;
  const auto* const from = reinterpret_cast<const uint4*>(
      link.area_of(self) + link.lines.control_offset(target.epoch, target.wait.peer.value()));
  const int count = control_vectors<Line>(num_counts);
  device::LineBatch<Line, kControlSteps> batch;
  for (int first = 0; first < count; first += kControlVectors) {
    const int left = min(count - first, kControlVectors);
    batch.load(from + first, left);
    const Arrival arrival = device::await_lines(link.domain, target, from + first, left, batch);
    if (arrival != Arrival::kArrived) return arrival;
#pragma unroll
    for (int step = 0; step < kControlSteps; ++step) {
      const int v = step * warpSize + static_cast<int>(threadIdx.x % warpSize);
      if (v >= left) continue;
      const LineWords words = words_of_vector(Line::kFormat, first + v);
      const int i = static_cast<int>(words.first / kLineWordBytes);
      keep_control_word(i, Line::first(batch.values[step]), header, counts, num_counts);
      if (!words.has_second) continue;
      keep_control_word(i + 1, Line::second(batch.values[step]), header, counts, num_counts);
    }
  }
  return Arrival::kArrived;
}

// What a block has heard from the ranks. Shared memory.
struct Heard {
  LowLatencyHeader* headers;  // [R]
  std::int32_t* counts;       // [R, num_counts]
  std::uint8_t* is_there;     // [R]
  int num_counts;
};

// One thread of block 0: adds what it has waited for `source`.
__device__ inline void note_wait_cost(const LowLatencyLink& link, int source,
                                      std::uint64_t start_ns) {
  if (link.wait_cost == nullptr) return;
  const std::uint64_t waited = device::now_ns() - start_ns;
  // The clock ticks in steps: a wait that took place costs something.
  link.wait_cost[source] += static_cast<std::int64_t>(waited > 0 ? waited : 1);
}

// One warp: hears from `source`. 1 if the rank has a fault.
template <class Line>
__device__ int hear_from(const LowLatencyLink& link, Stage stage, Epoch epoch, int source,
                         const Heard& heard) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  if (lane == 0) heard.is_there[source] = 0;
  if (__any_sync(~0U, is_masked(link, source)) != 0) return 0;
  const bool outlives = link.survival == Survival::kMask && source != link.domain.rank.value();
  const auto on_loss = outlives ? device::OnLoss::kReport : device::OnLoss::kRaise;
  const std::uint64_t start_ns = device::now_ns();
  const Arrival arrival = await_control<Line>(
      link, line_target(link, stage, Rank(source), epoch, on_loss), heard.headers[source],
      heard.counts + source * heard.num_counts, heard.num_counts);
  if (lane == 0 && blockIdx.x == 0) note_wait_cost(link, source, start_ns);
  if (lane == 0 && arrival == Arrival::kLost) mask(link, source);
  if (lane == 0 && arrival == Arrival::kArrived) heard.is_there[source] = 1;
  return arrival == Arrival::kGaveUp ? 1 : 0;
}

// One thread, if ranks may be lost: block 0 alone finds out which, so that all blocks agree.
__device__ inline void decide(const LowLatencyLink& link, Epoch epoch) {
  const device::DeviceWord<std::uint64_t> decided(link.state->decided);
  decided.store(epoch.value(), cuda::memory_order_release);
}
__device__ inline bool await_decision(const LowLatencyLink& link, Stage stage, Epoch epoch) {
  const device::WaitTarget target = wait_target(link, stage, link.domain.rank);
  return device::wait_for_blocks(link.domain, target, link.state->decided, epoch.value());
}

// All threads of a block: hears from all ranks that are not masked. False: the rank has a fault.
template <class Line>
__device__ bool hear_all(const LowLatencyLink& link, Stage stage, Epoch epoch, const Heard& heard) {
  const bool decides = link.survival == Survival::kMask;
  int failed = 0;
  if (decides && blockIdx.x != 0) {
    if (threadIdx.x == 0 && !await_decision(link, stage, epoch)) failed = 1;
    if (__syncthreads_or(failed) != 0) return false;
  }
  for (int source = static_cast<int>(threadIdx.x / warpSize); source < link.num_ranks();
       source += LowLatencyRoles::kNumWarps) {
    failed |= hear_from<Line>(link, stage, epoch, source, heard);
  }
  failed = __syncthreads_or(failed);
  if (decides && blockIdx.x == 0 && threadIdx.x == 0 && failed == 0) decide(link, epoch);
  return failed == 0;
}

// All threads of a block, after hear_all(): whether the ranks make the same call, and none refuses
// it. All blocks of all ranks come to the same answer; block 0 raises the fault.
__device__ inline bool calls_match(const LowLatencyLink& link, Epoch epoch, const Heard& heard) {
  int differs = 0;
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    if (heard.is_there[i] == 0) continue;
    const LowLatencyHeader& theirs = heard.headers[i];
    const LowLatencyHeader& mine = link.header;
    if (theirs.epoch != epoch.value() || theirs.operation != mine.operation ||
        theirs.format != mine.format || theirs.has_weights != mine.has_weights ||
        theirs.num_experts != mine.num_experts || theirs.refused != 0) {
      differs = 1;
    }
  }
  if (__syncthreads_or(differs) == 0) return true;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    device::raise_fault(link.domain, wait_target(link, Stage::kReceive, link.domain.rank),
                        device::FaultCause::kRefused, 0, 0);
  }
  return false;
}

}  // namespace moelink::kernels
