// Roles route, count and place: which ranks a block's tokens go to, and into which rows.
#pragma once

#include <cstdint>

#include "device/domain.hpp"
#include "kernels/dispatch/params.hpp"
#include "protocol/expert_map.hpp"

namespace moelink::kernels {

struct TokenRange {
  std::int64_t begin;
  std::int64_t end;
};

// Part `index` of `count` nearly equal parts.
__device__ inline TokenRange part_of(TokenRange whole, int index, int count) {
  const auto size = static_cast<int>(whole.end - whole.begin);
  const int share = size / count;
  const int longer = size % count;  // so many parts have one more
  const std::int64_t begin = whole.begin + index * share + min(index, longer);
  return {begin, begin + share + (index < longer ? 1 : 0)};
}

// Counters of the routing warps in shared memory: a row each, as the count matrix has: [R + E].
// First they count, then they hold the next free row of each rank and expert.
struct RouteCounters {
  std::int32_t* cells;
  int num_columns;
  int num_warps;

  __device__ std::int32_t* row(int warp) const { return cells + warp * num_columns; }
};

// The selections that a warp looks at in one step: those of as many whole tokens as it has lanes
// for, in the order (token, k).
struct StepShape {
  int num_topk;
  int num_tokens;  // of a step
  int slot;        // of the calling lane's token in the step; num_tokens or more: none
  int k;

  __device__ explicit StepShape(int topk)
      : num_topk(topk),
        num_tokens(warpSize / topk),
        slot(static_cast<int>(threadIdx.x % warpSize) / topk),
        k(static_cast<int>(threadIdx.x % warpSize) % topk) {}
};

// One selection as a lane sees it.
struct Selection {
  std::int64_t index;  // in the top-k list
  std::int64_t token;
  int expert;     // -1: none, or left out by the mask
  int owner;      // -1 likewise
  bool is_first;  // of its token's selections that lead to this owner
};

// Index of the calling lane's selection in the step that starts at `token`; -1: none.
__device__ inline std::int64_t selection_of_lane(const StepShape& step, TokenRange tokens,
                                                 std::int64_t token) {
  const bool exists = step.slot < step.num_tokens && token + step.slot < tokens.end;
  return exists ? (token + step.slot) * step.num_topk + step.k : -1;
}

// One warp. `id` is what the list says at `index`, which is a selection of `token`.
__device__ inline Selection resolve(const DispatchParams& params, const StepShape& step,
                                    std::int64_t token, std::int64_t index, std::int64_t id) {
  const ExpertMap map = ExpertMap::make(params.num_experts, params.domain.num_ranks());
  const int num_ranks = params.domain.num_ranks();
  Selection selection{index, token, -1, -1, false};
  if (index >= 0 && id != kNoExpert && map.is_valid(id)) {
    selection.expert = static_cast<int>(id);
    selection.owner = map.owner(Expert(selection.expert)).value();
    if (params.mask != nullptr && params.mask[token * num_ranks + selection.owner] == 0) {
      selection.expert = -1;
      selection.owner = -1;
    }
  }
  const int key = selection.owner < 0 ? -1 : step.slot * num_ranks + selection.owner;
  const unsigned same = __match_any_sync(~0U, key);
  const unsigned lower = (1U << threadIdx.x % warpSize) - 1;
  selection.is_first = key >= 0 && (same & lower) == 0;
  return selection;
}

// Adds the members of a group of lanes to the counter that they share. Returns how far behind the
// counter's old value the calling lane comes: lanes count in their order.
__device__ inline int join_counter(std::int32_t* counters, int counter) {
  const unsigned lane = threadIdx.x % warpSize;
  const unsigned group = __match_any_sync(~0U, counter);
  const int before = __popc(group & ((1U << lane) - 1));
  const std::int32_t first = counter >= 0 ? counters[counter] : 0;
  __syncwarp();
  if (counter >= 0 && before == 0) counters[counter] = first + __popc(group);
  __syncwarp();
  return first + before;
}

// visit(selection) for all selections of a warp's tokens, step by step; the ids of a step are
// loaded during the one before.
template <class Visit>
__device__ void for_each_step(const DispatchParams& params, TokenRange tokens, const Visit& visit) {
  const ExpertMap map = ExpertMap::make(params.num_experts, params.domain.num_ranks());
  const StepShape step(params.topk.num_topk);
  const auto load = [&](std::int64_t index) {
    return index >= 0 ? params.topk.id(index) : std::int64_t{kNoExpert};
  };
  std::int64_t index = selection_of_lane(step, tokens, tokens.begin);
  std::int64_t id = load(index);
#pragma unroll 1
  for (std::int64_t token = tokens.begin; token < tokens.end; token += step.num_tokens) {
    const std::int64_t next_index = selection_of_lane(step, tokens, token + step.num_tokens);
    const std::int64_t next_id = load(next_index);
    if (index >= 0 && !map.is_valid(id)) {  // the exchange tells all ranks
      atomicMax(&params.domain.local->bad_selection, ~static_cast<unsigned long long>(index));
    }
    visit(resolve(params, step, token + step.slot, index, id));
    index = next_index;
    id = next_id;
  }
}

// One warp: counts the selections, and without a mask also the tokens, of its tokens.
__device__ inline void count_selections(const DispatchParams& params, TokenRange tokens,
                                        std::int32_t* counters) {
  const int num_ranks = params.domain.num_ranks();
  for_each_step(params, tokens, [&](const Selection& selection) {
    const bool counts_token = params.mask == nullptr && selection.is_first;
    join_counter(counters, counts_token ? selection.owner : -1);
    join_counter(counters, selection.expert < 0 ? -1 : num_ranks + selection.expert);
  });
}

__device__ inline void count_masked_tokens(const DispatchParams& params, TokenRange tokens,
                                           std::int32_t* counters) {
  const int num_ranks = params.domain.num_ranks();
  const std::int64_t end = tokens.end * num_ranks;
#pragma unroll 1
  for (std::int64_t i = tokens.begin * num_ranks + threadIdx.x % warpSize; i < end; i += warpSize) {
    if (params.mask[i] != 0) atomicAdd(&counters[i % num_ranks], 1);
  }
}

// All threads of a block. Counts the block's tokens; leaves in each warp's counters what the lower
// warps have counted, and the block's sums in `sums`.
__device__ inline void count_tokens(const DispatchParams& params, TokenRange tokens,
                                    const RouteCounters& counters, std::int32_t* sums) {
  const int warp = static_cast<int>(threadIdx.x / warpSize);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < counters.num_columns * counters.num_warps;
       i += static_cast<int>(blockDim.x)) {
    counters.cells[i] = 0;
  }
  __syncthreads();
  if (warp < counters.num_warps) {
    const TokenRange mine = part_of(tokens, warp, counters.num_warps);
    if (params.topk.ids != nullptr) count_selections(params, mine, counters.row(warp));
    if (params.mask != nullptr) count_masked_tokens(params, mine, counters.row(warp));
  }
  __syncthreads();
#pragma unroll 1
  for (int column = static_cast<int>(threadIdx.x); column < counters.num_columns;
       column += static_cast<int>(blockDim.x)) {
    std::int32_t sum = 0;
#pragma unroll 1
    for (int i = 0; i < counters.num_warps; ++i) {
      const std::int32_t count = counters.row(i)[column];
      counters.row(i)[column] = sum;
      sum += count;
    }
    sums[column] = sum;
  }
}

// All threads of a block: adds to the counters where this rank's rows begin at each destination,
// and what the lower blocks have counted.
__device__ inline void find_first_rows(const DispatchParams& params,
                                       const RouteCounters& counters) {
  const Domain& domain = params.domain;
  const CountMatrix matrix = params.count_matrix();
  const bool compact = params.shape.layout == Layout::kCompact;
  const int num_columns = compact ? domain.num_ranks() : counters.num_columns;
#pragma unroll 1
  for (int column = static_cast<int>(threadIdx.x); column < num_columns;
       column += static_cast<int>(blockDim.x)) {
    std::int32_t first =
        column < domain.num_ranks()
            ? static_cast<std::int32_t>(matrix.tokens_before(domain.rank, Rank(column)))
            : domain.expert_base[column - domain.num_ranks()];
#pragma unroll 8
    for (unsigned block = 0; block < blockIdx.x; ++block) {
      first += domain.partials[static_cast<int>(block) * counters.num_columns + column];
    }
#pragma unroll 1
    for (int warp = 0; warp < counters.num_warps; ++warp) counters.row(warp)[column] += first;
  }
  __syncthreads();
}

// One warp: sends its tokens where the mask says; a lane has a rank.
__device__ inline void place_masked_tokens(const DispatchParams& params, TokenRange tokens,
                                           std::int32_t* next_row) {
  const int num_ranks = params.domain.num_ranks();
#pragma unroll 1
  for (int rank = static_cast<int>(threadIdx.x % warpSize); rank < num_ranks; rank += warpSize) {
#pragma unroll 1
    for (std::int64_t token = tokens.begin; token < tokens.end; ++token) {
      const std::int64_t at = token * num_ranks + rank;
      const bool sent = params.mask[at] != 0;
      params.routing.send_row[at] = sent ? next_row[rank]++ : static_cast<std::int32_t>(kNoRow);
      params.routing.is_token_in_rank[at] = sent ? 1 : 0;
    }
  }
  __syncwarp();
}

// One warp: marks its tokens as sent nowhere.
__device__ inline void clear_destinations(const DispatchParams& params, TokenRange tokens) {
  const int num_ranks = params.domain.num_ranks();
#pragma unroll 1
  for (std::int64_t i = tokens.begin * num_ranks + threadIdx.x % warpSize;
       i < tokens.end * num_ranks; i += warpSize) {
    params.routing.send_row[i] = static_cast<std::int32_t>(kNoRow);
    params.routing.is_token_in_rank[i] = 0;
  }
  __syncwarp();
}

// One warp: the rows of its tokens' selections.
__device__ inline void place_selections(const DispatchParams& params, TokenRange tokens,
                                        std::int32_t* next_row) {
  const int num_ranks = params.domain.num_ranks();
  const bool compact = params.shape.layout == Layout::kCompact;
  for_each_step(params, tokens, [&](const Selection& selection) {
    if (params.mask == nullptr) {
      const int row = join_counter(next_row, selection.is_first ? selection.owner : -1);
      if (selection.is_first) {
        const std::int64_t at = selection.token * num_ranks + selection.owner;
        params.routing.send_row[at] = row;
        params.routing.is_token_in_rank[at] = 1;
      }
    }
    if (selection.index >= 0) params.routing.topk_owner[selection.index] = selection.owner;
    if (compact) return;
    const bool exists = selection.expert >= 0;
    const int row = join_counter(next_row, exists ? num_ranks + selection.expert : -1);
    if (selection.index < 0) return;
    params.routing.expert_row[selection.index] = exists ? row : static_cast<std::int32_t>(kNoRow);
  });
}

// All threads of a block, after find_first_rows(): gives every token its rows, in token order.
__device__ inline void place_tokens(const DispatchParams& params, TokenRange tokens,
                                    const RouteCounters& counters) {
  const int warp = static_cast<int>(threadIdx.x / warpSize);
  if (warp >= counters.num_warps) return;
  const TokenRange mine = part_of(tokens, warp, counters.num_warps);
  if (params.mask != nullptr) {
    place_masked_tokens(params, mine, counters.row(warp));
  } else {
    clear_destinations(params, mine);
  }
  if (params.topk.ids != nullptr) place_selections(params, mine, counters.row(warp));
}

}  // namespace moelink::kernels
