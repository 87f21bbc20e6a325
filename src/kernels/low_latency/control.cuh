// Control messages: what a rank says about its operation to each peer, whether it sends rows or
// not.
#pragma once

#include <cstdint>

#include "kernels/low_latency/flow.cuh"
#include "kernels/low_latency/roles.hpp"
#include "kernels/low_latency/route.cuh"

namespace moelink::kernels {

// All warps of a block: visit(rank, first, count) for every 32 vectors of the messages of all
// ranks.
template <class Visit>
__device__ void for_each_control_step(const LowLatencyLink& link, const ControlBoard& board,
                                      const Visit& visit) {
  const int total =
      board.num_counts > 0 ? link.lines.control_vectors : link.lines.plain_control_vectors;
  const int steps = (total + warpSize - 1) / warpSize;
#pragma unroll 1
  for (int unit = static_cast<int>(threadIdx.x / warpSize); unit < link.num_ranks() * steps;
       unit += LowLatencyRoles::kNumWarps) {
    const int rank = unit / steps;
    const int first = (unit - rank * steps) * warpSize;
    visit(rank, first, min(total - first, static_cast<int>(warpSize)));
  }
}

// All threads of a block: makes the board's headers say what the operation is. A barrier must
// follow.
__device__ inline void head_controls(const LowLatencyLink& link, Epoch epoch, bool refused,
                                     const ControlBoard& board) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += LowLatencyRoles::kNumThreads) {
    LowLatencyHeader& header = board.header(i);
    const std::uint32_t num_tokens = header.num_tokens;
    header = link.header;
    header.epoch = epoch.value();
    header.num_tokens = num_tokens;
    header.refused = refused ? 1 : 0;
  }
}

// All threads of a block: sends the board's messages to the ranks.
template <class Line>
__device__ void send_controls(const LowLatencyLink& link, Epoch epoch, const ControlBoard& board) {
  for_each_control_step(link, board, [&](int peer, int first, int count) {
    if (is_masked(link, peer)) return;
    const int lane = static_cast<int>(threadIdx.x % warpSize);
    if (lane >= count) return;
    auto* const to = reinterpret_cast<uint4*>(
        link.area_of(Rank(peer)) + link.lines.control_offset(epoch, link.domain.rank.value()));
    const LineWords words = words_of_vector(Line::kFormat, first + lane);
    const int i = static_cast<int>(words.first / kLineWordBytes);
    const auto word = [&](int at) {
      return at < board.num_words() ? board.words(peer)[at] : std::uint64_t{0};
    };
    device::store_vector(to + first + lane, Line::seal(word(i), words.has_second ? word(i + 1) : 0,
                                                       first + lane, epoch));
  });
}

// What a block has heard from the ranks. Shared memory.
struct Heard {
  ControlBoard board;
  std::uint8_t* is_there;  // [R]
};

// One warp: waits for a step of the message of `target`'s peer and keeps it on the board.
template <class Line>
__device__ Arrival await_control(const LowLatencyLink& link, const device::LineTarget& target,
                                 int first, int count, const ControlBoard& board) {
  const int source = target.wait.peer.value();
  const auto* const from =
      reinterpret_cast<const uint4*>(link.area_of(link.domain.rank) +
                                     link.lines.control_offset(target.epoch, source)) +
      first;
  device::LineBatch<Line, 1> batch;
  batch.load(from, count);
  const Arrival arrival = device::await_lines(link.domain, target, from, count, batch);
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  if (arrival != Arrival::kArrived || lane >= count) return arrival;
  const LineWords words = words_of_vector(Line::kFormat, first + lane);
  const int i = static_cast<int>(words.first / kLineWordBytes);
  if (i < board.num_words()) board.words(source)[i] = Line::first(batch.values[0]);
  if (words.has_second && i + 1 < board.num_words()) {
    board.words(source)[i + 1] = Line::second(batch.values[0]);
  }
  return arrival;
}

// One thread of block 0: adds what it has waited for `source`.
__device__ inline void note_wait_cost(const LowLatencyLink& link, int source,
                                      std::uint64_t start_ns) {
  if (link.wait_cost == nullptr) return;
  const std::uint64_t waited = device::now_ns() - start_ns;
  // The clock ticks in steps: a wait that took place costs something.
  link.wait_cost[source] += static_cast<std::int64_t>(waited > 0 ? waited : 1);
}

// One warp: hears a step of the message of `source`. 1 if the rank has a fault.
template <class Line>
__device__ int hear_from(const LowLatencyLink& link, const device::LineTarget& target, int first,
                         int count, const Heard& heard) {
  const int source = target.wait.peer.value();
  const bool speaks = threadIdx.x % warpSize == 0;
  const std::uint64_t start_ns = link.wait_cost == nullptr ? 0 : device::now_ns();
  const Arrival arrival = await_control<Line>(link, target, first, count, heard.board);
  if (speaks && first == 0 && blockIdx.x == 0) note_wait_cost(link, source, start_ns);
  if (speaks && arrival == Arrival::kLost) {
    mask(link, source);
    heard.is_there[source] = 0;
  }
  return arrival == Arrival::kGaveUp ? 1 : 0;
}

// One thread, if ranks may be lost: block 0 alone finds out which, so that all blocks agree.
__device__ inline void decide(const LowLatencyLink& link, Epoch epoch) {
  const device::DeviceWord<std::uint64_t> decided(link.state->decided[epoch.value() % 2]);
  decided.store(epoch.value(), cuda::memory_order_release);
}
__device__ inline bool await_decision(const LowLatencyLink& link, Stage stage, Epoch epoch) {
  const device::WaitTarget target = wait_target(link, stage, link.domain.rank);
  return device::wait_for_blocks(link.domain, target, link.state->decided[epoch.value() % 2],
                                 epoch.value());
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
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += LowLatencyRoles::kNumThreads) {
    heard.is_there[i] = is_masked(link, i) ? 0 : 1;
  }
  __syncthreads();
  for_each_control_step(link, heard.board, [&](int source, int first, int count) {
    if (heard.is_there[source] == 0) return;
    const bool outlives = decides && source != link.domain.rank.value();
    const auto on_loss = outlives ? device::OnLoss::kReport : device::OnLoss::kRaise;
    failed |= hear_from<Line>(link, line_target(link, stage, Rank(source), epoch, on_loss), first,
                              count, heard);
  });
  failed = __syncthreads_or(failed);
  if (decides && blockIdx.x == 0 && threadIdx.x == 0 && failed == 0) decide(link, epoch);
  return failed == 0;
}

// All threads of a block, after hear_all(): whether the ranks make the same call, and none refuses
// it. All blocks of all ranks come to the same answer; block 0 raises the fault.
__device__ inline bool calls_match(const LowLatencyLink& link, Epoch epoch, const Heard& heard) {
  int differs = 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    if (heard.is_there[i] == 0) continue;
    const LowLatencyHeader& theirs = heard.board.header(i);
    const LowLatencyHeader& mine = link.header;
    if (theirs.epoch != epoch.value() || theirs.operation != mine.operation ||
        theirs.format != mine.format || theirs.has_weights != mine.has_weights ||
        theirs.num_experts != mine.num_experts || theirs.refused != 0) {
      differs = 1;
    }
  }
  if (__syncthreads_or(differs) == 0) return true;
  // A rank that refuses its own call says why by itself.
  const bool is_own = heard.board.header(link.domain.rank.value()).refused != 0;
  if (blockIdx.x == 0 && threadIdx.x == 0 && !is_own) refuse(link, {});
  return false;
}

}  // namespace moelink::kernels
