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
  const std::int64_t size = whole.end - whole.begin;
  return {whole.begin + size * index / count, whole.begin + size * (index + 1) / count};
}

// Counters of the routing warps in shared memory: a row each, as the count matrix has: [R + E].
// First they count, then they hold the next free row of each rank and expert.
struct RouteCounters {
  std::int32_t* cells;
  int num_columns;
  int num_warps;

  __device__ std::int32_t* row(int warp) const { return cells + warp * num_columns; }
};

__device__ inline bool is_first_of_owner(const DispatchParams& params, const ExpertMap& map,
                                         std::int64_t token, int k) {
  const std::int64_t base = token * params.topk.num_topk;
  return is_first_for_rank(map, [&](int i) { return params.topk.id(base + i); }, k);
}

// Counts the selections, and without a mask also the tokens, of `tokens`; one thread a selection.
__device__ inline void count_selections(const DispatchParams& params, const ExpertMap& map,
                                        TokenRange tokens, std::int32_t* counters) {
  const int num_ranks = params.domain.num_ranks();
  const std::int64_t end = tokens.end * params.topk.num_topk;
  for (std::int64_t i = tokens.begin * params.topk.num_topk + threadIdx.x % warpSize; i < end;
       i += warpSize) {
    const std::int64_t id = params.topk.id(i);
    if (id == kNoExpert) continue;
    if (!map.is_valid(id)) {
      atomicMax(&params.domain.local->bad_selection, ~static_cast<unsigned long long>(i));
      continue;
    }
    const Expert expert(static_cast<std::int32_t>(id));
    const Rank owner = map.owner(expert);
    const std::int64_t token = i / params.topk.num_topk;
    if (params.mask != nullptr && params.mask[token * num_ranks + owner.value()] == 0) continue;
    atomicAdd(&counters[num_ranks + expert.value()], 1);
    const int k = static_cast<int>(i % params.topk.num_topk);
    if (params.mask == nullptr && is_first_of_owner(params, map, token, k)) {
      atomicAdd(&counters[owner.value()], 1);
    }
  }
}

__device__ inline void count_masked_tokens(const DispatchParams& params, TokenRange tokens,
                                           std::int32_t* counters) {
  const int num_ranks = params.domain.num_ranks();
  const std::int64_t end = tokens.end * num_ranks;
  for (std::int64_t i = tokens.begin * num_ranks + threadIdx.x % warpSize; i < end; i += warpSize) {
    if (params.mask[i] != 0) atomicAdd(&counters[i % num_ranks], 1);
  }
}

// All threads of a block. Counts the block's tokens; leaves in each warp's counters what the lower
// warps have counted, and the block's sums in `sums`.
__device__ inline void count_tokens(const DispatchParams& params, TokenRange tokens,
                                    const RouteCounters& counters, std::int32_t* sums) {
  const int warp = static_cast<int>(threadIdx.x / warpSize);
  const ExpertMap map = ExpertMap::make(params.num_experts, params.domain.num_ranks());
  for (int i = static_cast<int>(threadIdx.x); i < counters.num_columns * counters.num_warps;
       i += static_cast<int>(blockDim.x)) {
    counters.cells[i] = 0;
  }
  __syncthreads();
  if (warp < counters.num_warps) {
    const TokenRange mine = part_of(tokens, warp, counters.num_warps);
    if (params.topk.ids != nullptr) {
      count_selections(params, map, mine, counters.row(warp));
    }
    if (params.mask != nullptr) count_masked_tokens(params, mine, counters.row(warp));
  }
  __syncthreads();
  for (int column = static_cast<int>(threadIdx.x); column < counters.num_columns;
       column += static_cast<int>(blockDim.x)) {
    std::int32_t sum = 0;
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
  const CountMatrix matrix{params.routing.counts, domain.num_ranks(), params.num_experts};
  const bool compact = params.shape.layout == Layout::kCompact;
  const int num_columns = compact ? domain.num_ranks() : counters.num_columns;
  for (int column = static_cast<int>(threadIdx.x); column < num_columns;
       column += static_cast<int>(blockDim.x)) {
    std::int32_t first =
        column < domain.num_ranks()
            ? static_cast<std::int32_t>(matrix.tokens_before(domain.rank, Rank(column)))
            : domain.expert_base[column - domain.num_ranks()];
    for (unsigned block = 0; block < blockIdx.x; ++block) {
      first += domain.partials[static_cast<int>(block) * counters.num_columns + column];
    }
    for (int warp = 0; warp < counters.num_warps; ++warp) counters.row(warp)[column] += first;
  }
  __syncthreads();
}

// One warp: the rows of one token's selections. Lane k < K has selection k.
__device__ inline void place_selections(const DispatchParams& params, const ExpertMap& map,
                                        std::int64_t token, std::int32_t* next_row) {
  const int num_ranks = params.domain.num_ranks();
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.topk.num_topk;
  std::int64_t id = lane < num_topk ? params.topk.id(token * num_topk + lane) : kNoExpert;
  int owner = id < 0 ? -1 : static_cast<int>(id) / map.experts_per_rank;
  if (owner >= 0 && params.mask != nullptr && params.mask[token * num_ranks + owner] == 0) {
    owner = -1;
  }
  if (owner < 0) id = kNoExpert;
  const unsigned lower = (1U << lane) - 1;
  const unsigned same_owner = __match_any_sync(~0U, owner);
  if (params.mask == nullptr && owner >= 0 && (same_owner & lower) == 0) {
    params.routing.send_row[token * num_ranks + owner] = next_row[owner]++;
    params.routing.is_token_in_rank[token * num_ranks + owner] = 1;
  }
  if (lane < num_topk) params.routing.topk_owner[token * num_topk + lane] = owner;
  if (params.shape.layout == Layout::kCompact) return;
  const unsigned same_expert = __match_any_sync(~0U, static_cast<int>(id));
  const int before = __popc(same_expert & lower);
  std::int32_t row = static_cast<std::int32_t>(kNoRow);
  if (id >= 0) row = next_row[num_ranks + static_cast<int>(id)] + before;
  __syncwarp();
  if (id >= 0 && before == 0) {
    next_row[num_ranks + static_cast<int>(id)] += __popc(same_expert);
  }
  if (lane < num_topk) params.routing.expert_row[token * num_topk + lane] = row;
}

// All threads of a block, after find_first_rows(): gives every token its rows, in token order.
__device__ inline void place_tokens(const DispatchParams& params, TokenRange tokens,
                                    const RouteCounters& counters) {
  const int warp = static_cast<int>(threadIdx.x / warpSize);
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  if (warp >= counters.num_warps) return;
  const int num_ranks = params.domain.num_ranks();
  const ExpertMap map = ExpertMap::make(params.num_experts, num_ranks);
  const TokenRange mine = part_of(tokens, warp, counters.num_warps);
  std::int32_t* const next_row = counters.row(warp);
  for (std::int64_t token = mine.begin; token < mine.end; ++token) {
    for (int rank = lane; rank < num_ranks; rank += warpSize) {
      const std::int64_t at = token * num_ranks + rank;
      const bool sent = params.mask != nullptr && params.mask[at] != 0;
      params.routing.send_row[at] = sent ? next_row[rank]++ : static_cast<std::int32_t>(kNoRow);
      params.routing.is_token_in_rank[at] = sent ? 1 : 0;
    }
    __syncwarp();
    if (params.topk.num_topk > 0) place_selections(params, map, token, next_row);
    __syncwarp();
  }
}

}  // namespace moelink::kernels
