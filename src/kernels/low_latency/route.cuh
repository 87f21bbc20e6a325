// Roles route and count: which ranks and experts a block's tokens go to, and how many went before.
#pragma once

#include <cstdint>

#include "kernels/low_latency/params.hpp"
#include "kernels/low_latency/roles.hpp"
#include "protocol/expert_map.hpp"

namespace moelink::kernels {

// Selections of each expert and tokens for each rank so far. Shared memory.
struct SentCounts {
  std::int32_t* of_expert;  // [E]
  std::int32_t* of_rank;    // [R]
};

// One selection as a lane sees it.
struct Choice {
  int expert = -1;
  int owner = -1;
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
    choice.expert = static_cast<int>(id);
    choice.owner = choice.expert / link.num_local();
  }
  const int key = choice.owner < 0 ? -1 : slot * link.num_ranks() + choice.owner;
  const unsigned same = __match_any_sync(~0U, key);
  const unsigned lower = (1U << threadIdx.x % warpSize) - 1;
  choice.is_first = key >= 0 && (same & lower) == 0;
  return choice;
}

__device__ inline void clear_counts(const LowLatencyLink& link, const SentCounts& counts) {
  for (int i = static_cast<int>(threadIdx.x); i < link.num_experts;
       i += static_cast<int>(blockDim.x)) {
    counts.of_expert[i] = 0;
  }
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    counts.of_rank[i] = 0;
  }
  __syncthreads();
}

// All threads of a block: counts the selections of the first `num_tokens` tokens. True at a thread
// that has seen an id which is no expert. A barrier must follow before the counts are read.
__device__ inline bool count_tokens_before(const LowLatencyLink& link, int num_tokens,
                                           const SentCounts& counts) {
  clear_counts(link, counts);
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = link.topk.num_topk;
  const int per_step = warpSize / num_topk;
  const int slot = lane / num_topk;
  const int stride = per_step * LowLatencyRoles::kNumWarps;
  bool is_bad = false;
  for (int token = static_cast<int>(threadIdx.x / warpSize) * per_step; token < num_tokens;
       token += stride) {
    const bool exists = slot < per_step && token + slot < num_tokens;
    const int index = exists ? (token + slot) * num_topk + lane % num_topk : -1;
    const Choice choice = choice_at(link, index, slot);
    is_bad = is_bad || choice.is_bad;
    if (choice.is_first) atomicAdd(&counts.of_rank[choice.owner], 1);
    if (choice.expert >= 0) atomicAdd(&counts.of_expert[choice.expert], 1);
  }
  return is_bad;
}

// What one token is sent as. Shared memory.
struct TokenTargets {
  int count;
  std::int32_t rank[kMaxTopk];
  std::int32_t slot[kMaxTopk];  // among the rows of this rank at that one
};

// One warp: finds the targets of a token and writes a row header for each to `headers`, one after
// the other; counts on.
__device__ inline void describe_token(const LowLatencyLink& link, int token,
                                      const SentCounts& counts, TokenTargets& targets,
                                      std::byte* headers) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = link.topk.num_topk;
  const int index = lane < num_topk ? token * num_topk + lane : -1;
  const Choice choice = choice_at(link, index, 0);
  const unsigned lower = (1U << lane) - 1;
  const unsigned same_expert = __match_any_sync(~0U, choice.expert);
  WireSelection selection;
  if (choice.expert >= 0) {
    selection.local = choice.expert - choice.owner * link.num_local();
    selection.index = counts.of_expert[choice.expert] + __popc(same_expert & lower);
  }
  __syncwarp();
  if (choice.expert >= 0 && (same_expert & lower) == 0) {
    counts.of_expert[choice.expert] += __popc(same_expert);
  }
  const bool is_sent = choice.is_first && link.masked[choice.owner] == 0;
  const unsigned firsts = __ballot_sync(~0U, is_sent);
  if (is_sent) {
    const int target = __popc(firsts & lower);
    targets.rank[target] = choice.owner;
    targets.slot[target] = counts.of_rank[choice.owner]++;
  }
  if (lane == 0) targets.count = __popc(firsts);
  const float weight = index >= 0 && link.topk.weights != nullptr ? link.topk.weights[index] : 0.0F;
  int target = 0;
  for (unsigned left = firsts; left != 0; left &= left - 1, ++target) {
    const int owner = __shfl_sync(~0U, choice.owner, __ffs(static_cast<int>(left)) - 1);
    auto* const words = reinterpret_cast<std::uint32_t*>(
        headers + static_cast<std::size_t>(target) * RowHeader::bytes(num_topk));
    if (lane == 0) words[0] = static_cast<std::uint32_t>(token);
    if (lane == 0) words[1] = 0;
    if (lane >= num_topk) continue;
    const bool here = choice.owner == owner;
    words[2 + lane] = here ? selection.pack() : 0;
    words[2 + num_topk + lane] = here ? __float_as_uint(weight) : 0;
  }
}

}  // namespace moelink::kernels
