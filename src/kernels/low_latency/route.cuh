// Roles route and count: which ranks and experts a block's tokens go to, and how many went before.
#pragma once

#include <cstdint>

#include "kernels/low_latency/params.hpp"
#include "kernels/low_latency/roles.hpp"
#include "protocol/expert_map.hpp"

namespace moelink::kernels {

// A control message per rank, as its words lie in the message: a LowLatencyHeader, then a count per
// local expert of the receiver. Shared memory.
struct ControlBoard {
  std::int32_t* cells;
  int num_counts;
  int stride;

  static constexpr int kHeaderCells = sizeof(LowLatencyHeader) / sizeof(std::int32_t);

  __device__ ControlBoard(std::byte* shared, int num_local)
      : cells(reinterpret_cast<std::int32_t*>(shared)),
        num_counts(num_local),
        stride(kHeaderCells + (num_local + 1) / 2 * 2) {}

  __device__ std::uint64_t* words(int rank) const {
    return reinterpret_cast<std::uint64_t*>(cells + rank * stride);
  }
  __device__ int num_words() const { return stride / 2; }
  __device__ LowLatencyHeader& header(int rank) const {
    return *reinterpret_cast<LowLatencyHeader*>(cells + rank * stride);
  }
  __device__ std::int32_t& count(int rank, int local) const {
    return cells[rank * stride + kHeaderCells + local];
  }
  __device__ std::int32_t* num_tokens(int rank) const {
    return reinterpret_cast<std::int32_t*>(&header(rank).num_tokens);
  }
};

// One selection as a lane sees it.
struct Choice {
  int owner = -1;  // -1: none
  int local = -1;
  bool is_first = false;  // of its token's selections that lead to this owner
  bool is_bad = false;    // no expert
};

// All lanes of a warp: what stands at `index` of the top-k list (-1: nothing). Lanes of the same
// token have the same `slot`.
__device__ inline Choice choice_at(const LowLatencyLink& link, int index, int slot) {
  Choice choice;
  const std::int64_t id = index >= 0 ? link.topk.id(index) : std::int64_t{kNoExpert};
  choice.is_bad = id < kNoExpert || id >= link.num_experts;
  if (id >= 0 && id < link.num_experts) {
    const int expert = static_cast<int>(id);
    choice.owner = expert / link.num_local;
    choice.local = expert - choice.owner * link.num_local;
  }
  const int key = choice.owner < 0 ? -1 : slot * link.num_ranks() + choice.owner;
  const unsigned same = __match_any_sync(~0U, key);
  const unsigned lower = (1U << threadIdx.x % warpSize) - 1;
  choice.is_first = key >= 0 && (same & lower) == 0;
  return choice;
}

// All threads of a block: counts the selections of the first `num_tokens` tokens. Returns the index
// of an id that is no expert, if the thread has seen one, otherwise -1. A barrier must follow
// before the counts are read.
__device__ inline int count_tokens_before(const LowLatencyLink& link, int num_tokens,
                                          const ControlBoard& counts) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks() * counts.stride;
       i += LowLatencyRoles::kNumThreads) {
    counts.cells[i] = 0;
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = link.topk.num_topk;
  const int per_step = warpSize / num_topk;
  const int slot = lane / num_topk;
  const int stride = per_step * LowLatencyRoles::kNumWarps;
  int bad_index = -1;
#pragma unroll 1
  for (int token = static_cast<int>(threadIdx.x / warpSize) * per_step; token < num_tokens;
       token += stride) {
    const bool exists = slot < per_step && token + slot < num_tokens;
    const int index = exists ? (token + slot) * num_topk + lane % num_topk : -1;
    const Choice choice = choice_at(link, index, slot);
    if (choice.is_bad) bad_index = index;
    if (choice.is_first) atomicAdd(counts.num_tokens(choice.owner), 1);
    if (choice.owner >= 0) atomicAdd(&counts.count(choice.owner, choice.local), 1);
  }
  return bad_index;
}

// What one token is sent as. Shared memory.
struct TokenTargets {
  int count;
  std::int32_t rank[kMaxTopk];
  std::int32_t slot[kMaxTopk];  // among the rows of this rank at that one
};

// What a token's list says, as the lane of a selection sees it: read ahead of its use.
struct TokenChoice {
  Choice choice;
  bool is_sent;  // the token is sent to the owner for this selection
  float weight;
};

// All lanes of a warp.
__device__ inline TokenChoice read_choice(const LowLatencyLink& link, int token) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int index = lane < link.topk.num_topk ? token * link.topk.num_topk + lane : -1;
  const bool weighs = index >= 0 && link.topk.weights != nullptr;
  TokenChoice made{{}, false, weighs ? link.topk.weights[index] : 0.0F};
  made.choice = choice_at(link, index, 0);
  made.is_sent = made.choice.is_first && link.masked[made.choice.owner] == 0;
  return made;
}

// One warp: writes a row header for each target of a token to `headers`, one after the other;
// counts on.
__device__ inline void describe_token(const LowLatencyLink& link, int token,
                                      const TokenChoice& chosen, const ControlBoard& counts,
                                      TokenTargets& targets, std::byte* headers) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = link.topk.num_topk;
  const Choice& choice = chosen.choice;
  const unsigned lower = (1U << lane) - 1;
  const int key = choice.owner < 0 ? -1 : choice.owner * link.num_local + choice.local;
  const unsigned same_expert = __match_any_sync(~0U, key);
  WireSelection selection;
  if (choice.owner >= 0) {
    selection.local = choice.local;
    selection.index = counts.count(choice.owner, choice.local) + __popc(same_expert & lower);
  }
  __syncwarp();
  if (choice.owner >= 0 && (same_expert & lower) == 0) {
    counts.count(choice.owner, choice.local) += __popc(same_expert);
  }
  const unsigned firsts = __ballot_sync(~0U, chosen.is_sent);
  if (chosen.is_sent) {
    const int target = __popc(firsts & lower);
    targets.rank[target] = choice.owner;
    targets.slot[target] = (*counts.num_tokens(choice.owner))++;
  }
  if (lane == 0) targets.count = __popc(firsts);
  int target = 0;
#pragma unroll 1
  for (unsigned left = firsts; left != 0; left &= left - 1, ++target) {
    const int owner = __shfl_sync(~0U, choice.owner, __ffs(static_cast<int>(left)) - 1);
    auto* const words = reinterpret_cast<std::uint32_t*>(headers + static_cast<unsigned>(target) *
                                                                       link.lines.header_bytes);
    if (lane == 0) words[0] = static_cast<std::uint32_t>(token);
    if (lane == 0) words[1] = 0;
    if (lane >= num_topk) continue;
    const bool here = choice.owner == owner;
    words[2 + lane] = here ? selection.pack() : 0;
    words[2 + num_topk + lane] = here ? __float_as_uint(chosen.weight) : 0;
  }
}

}  // namespace moelink::kernels
