// Rows of further local experts are copied after delivery, unused rows are filled.
#pragma once

#include <cstdint>

#include "kernels/dispatch/describe.cuh"
#include "kernels/dispatch/params.hpp"
#include "kernels/dispatch/send.cuh"
#include "protocol/counts.hpp"
#include "protocol/expert_map.hpp"

namespace moelink::kernels {

// Compact rows that came from other ranks, numbered without those of the own tokens, whose rows
// are complete.
struct ForeignTokens {
  std::int64_t own_begin;
  std::int64_t own_count;
  std::int64_t count;

  __device__ static ForeignTokens of(const CountMatrix& counts, Rank own) {
    const std::int64_t own_count = counts.tokens(own, own);
    return {counts.tokens_before(own, own), own_count, counts.num_tokens(own) - own_count};
  }
  __device__ std::int64_t token(std::int64_t i) const { return i < own_begin ? i : i + own_count; }
};

// One warp: copies the rows that arrived for several local experts to where the senders have not
// written them. `pieces` runs over `foreign`.
__device__ inline void expand_rows(const DispatchParams& params, Pipe& pipe,
                                   const ForeignTokens& foreign, const RowPieces& pieces) {
  const device::PeerParts& own = params.domain.peers[params.domain.rank.index()];
  const std::int32_t* const rows =
      params.is_cached() ? params.recv_expert_row
                         : reinterpret_cast<const std::int32_t*>(own.part(ReceivePart::kExpertRow));
  std::byte* const payload = own.part(ReceivePart::kPayload);
  const int num_topk = params.topk.num_topk;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const auto row_of_lane = [&](int i) {
    return lane < num_topk ? rows[foreign.token(i) * num_topk + lane]
                           : static_cast<std::int32_t>(kNoRow);
  };
  const auto first_lane = [](std::int32_t row) {
    return __ffs(static_cast<int>(__ballot_sync(~0U, row != kNoRow))) - 1;
  };
  const auto source = [&](int i) {
    const std::int32_t row = row_of_lane(i);
    const std::int32_t first = __shfl_sync(~0U, row, first_lane(row));
    return payload + static_cast<std::size_t>(first) * params.shape.row_bytes;
  };
  carry_rows(pipe, 0, PieceCursor(pieces), source,
             [&](std::uint32_t step, int i, std::size_t offset, std::size_t bytes) {
               const std::int32_t row = row_of_lane(i);
               const int first = first_lane(row);  // by all lanes
               const bool copies = row != kNoRow && lane != first;
               std::byte* const to =
                   payload + static_cast<std::size_t>(row) * params.shape.row_bytes + offset;
               pipe.put(step, copies ? to : nullptr, bytes);
             });
}

// Rows that a crew of threads fills together.
struct RowsToFill {
  std::int64_t begin;
  std::int64_t end;
  Crew crew;
};

// T: the widest type that divides row_bytes.
template <class T>
__device__ void fill_rows_as(std::byte* base, const RowsToFill& rows, std::size_t row_bytes,
                             T value) {
  const std::size_t end = static_cast<std::size_t>(rows.end) * row_bytes / sizeof(T);
  const std::size_t begin = static_cast<std::size_t>(rows.begin) * row_bytes / sizeof(T);
#pragma unroll 1
  for (std::size_t i = begin + static_cast<unsigned>(rows.crew.index); i < end;
       i += static_cast<unsigned>(rows.crew.size)) {
    reinterpret_cast<T*>(base)[i] = value;
  }
}

// Writes zeros, or -1, to a range of rows of one part.
__device__ inline void fill_rows(const DispatchParams& params, ReceivePart part,
                                 const RowsToFill& rows, std::size_t row_bytes, int value) {
  if (row_bytes == 0) return;
  std::byte* const base = params.domain.peers[params.domain.rank.index()].part(part);
  if (row_bytes % sizeof(int4) == 0) {
    fill_rows_as(base, rows, row_bytes, make_int4(value, value, value, value));
  } else if (row_bytes % sizeof(int) == 0) {
    fill_rows_as(base, rows, row_bytes, value);
  } else {
    fill_rows_as(base, rows, row_bytes, static_cast<signed char>(value));
  }
}

// The rows between the selections of one local expert and the next group.
__device__ inline void fill_gap(const DispatchParams& params, const ExpertMap& map,
                                LocalExpert local, Crew crew) {
  const std::int64_t count =
      params.count_matrix().num_selections(map.global(params.domain.rank, local));
  const std::int64_t begin = params.domain.group_start[local.index()];
  const RowsToFill gap{begin + count, begin + align_up(count, params.expert_alignment), crew};
  if (params.padding == Padding::kZero) {
    fill_rows(params, ReceivePart::kPayload, gap, params.shape.row_bytes, 0);
    fill_rows(params, ReceivePart::kScales, gap, params.shape.scale_bytes, 0);
  }
  fill_rows(params, ReceivePart::kTopkWeights, gap, params.shape.weight_bytes, 0);
}

// The threads that share the filling in block `index` of `count`.
struct FillShare {
  int index;
  int count;
  Crew crew;
};

// The rows behind the last one in use.
__device__ inline void fill_tail(const DispatchParams& params, const FillShare& share) {
  const std::int64_t max_rows = params.routing.max_rows_of_rank[params.domain.rank.index()];
  if (max_rows == 0) return;
  const bool compact = params.shape.layout == Layout::kCompact;
  const std::int64_t used =
      compact ? params.count_matrix().num_tokens(params.domain.rank) : *params.domain.num_rows;
  const TokenRange part = part_of({used, max_rows}, share.index, share.count);
  const RowsToFill rows{part.begin, part.end, share.crew};
  const std::size_t per_row = compact ? params.shape.num_topk : 1;
  fill_rows(params, ReceivePart::kTopkWeights, rows, per_row * params.shape.weight_bytes, 0);
  if (!compact) return;
  fill_rows(params, ReceivePart::kTopkIdx, rows, per_row * params.shape.index_bytes, -1);
}

// The expert-major rows that nobody sends.
__device__ inline void fill_unused(const DispatchParams& params, const FillShare& share) {
  fill_tail(params, share);
  const ExpertMap map = ExpertMap::make(params.num_experts, params.domain.num_ranks());
#pragma unroll 1
  for (int local = share.index; local < map.experts_per_rank; local += share.count) {
    fill_gap(params, map, LocalExpert(local), share.crew);
  }
}

}  // namespace moelink::kernels
