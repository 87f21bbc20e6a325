// Role describe: a warp writes what goes with the payload: scales, top-k lists, origins.
#pragma once

#include <cstdint>

#include "kernels/dispatch/params.hpp"
#include "protocol/expert_map.hpp"

namespace moelink::kernels {

template <class T>
__device__ T* part_of_rank(const DispatchParams& params, int rank, ReceivePart part) {
  return reinterpret_cast<T*>(params.domain.peers[rank].part(part));
}

// One warp: copies a strided row of scales to a contiguous one.
__device__ inline void copy_scales(const StridedSource& scales, std::int64_t token,
                                   std::byte* row) {
  const std::byte* const from = scales.data + token * scales.row_stride_bytes;
  for (int i = static_cast<int>(threadIdx.x % warpSize); i < scales.num_columns; i += warpSize) {
    const std::byte* const element = from + i * scales.column_stride_bytes;
    if (scales.element_bytes == 4) {
      reinterpret_cast<std::uint32_t*>(row)[i] = *reinterpret_cast<const std::uint32_t*>(element);
    } else {
      row[i] = *element;
    }
  }
}

// One warp: the top-k list as the receiver of a compact row sees it.
__device__ inline void describe_compact(const DispatchParams& params, std::int64_t token, int rank,
                                        std::int64_t row) {
  const int k = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.topk.num_topk;
  if (k >= num_topk) return;
  const std::int64_t from = token * num_topk + k;
  const std::int64_t to = row * num_topk + k;
  const bool here = params.routing.topk_owner[from] == rank;
  if (params.topk.weights != nullptr) {
    part_of_rank<float>(params, rank, ReceivePart::kTopkWeights)[to] =
        here ? params.topk.weights[from] : 0.0F;
  }
  if (params.topk.ids == nullptr) return;
  const ExpertMap map = ExpertMap::make(params.num_experts, params.domain.num_ranks());
  const std::int64_t local = here ? localize(map, params.topk.id(from), Rank(rank)) : kNoExpert;
  if (params.topk.id_bytes == 8) {
    part_of_rank<std::int64_t>(params, rank, ReceivePart::kTopkIdx)[to] = local;
  } else {
    part_of_rank<std::int32_t>(params, rank, ReceivePart::kTopkIdx)[to] =
        static_cast<std::int32_t>(local);
  }
}

// One warp: which expert-major rows a token has at one rank.
__device__ inline void describe_expert_rows(const DispatchParams& params, std::int64_t token,
                                            int rank, std::int64_t row) {
  const int k = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.topk.num_topk;
  if (k >= num_topk) return;
  const std::int64_t from = token * num_topk + k;
  const bool here = params.routing.topk_owner[from] == rank;
  part_of_rank<std::int32_t>(params, rank, ReceivePart::kExpertRow)[row * num_topk + k] =
      here ? params.routing.expert_row[from] : static_cast<std::int32_t>(kNoRow);
}

// One warp: weights and scales of a token's expert-major rows, at all ranks.
__device__ inline void fill_expert_rows(const DispatchParams& params, std::int64_t token) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.topk.num_topk;
  const std::int64_t at = token * num_topk + lane;
  const int owner = lane < num_topk ? params.routing.topk_owner[at] : -1;
  const std::int32_t row = owner >= 0 ? params.routing.expert_row[at] : 0;
  if (owner >= 0 && params.topk.weights != nullptr) {
    part_of_rank<float>(params, owner, ReceivePart::kTopkWeights)[row] = params.topk.weights[at];
  }
  if (params.scales.data == nullptr) return;
  for (int k = 0; k < num_topk; ++k) {
    const int rank = __shfl_sync(~0U, owner, k);
    const std::int64_t to = __shfl_sync(~0U, row, k);
    if (rank < 0) continue;
    copy_scales(params.scales, token,
                part_of_rank<std::byte>(params, rank, ReceivePart::kScales) +
                    static_cast<std::size_t>(to) * params.shape.scale_bytes);
  }
}

// One warp: everything but the payload of one token.
__device__ inline void describe_token(const DispatchParams& params, std::int64_t token) {
  const int num_ranks = params.domain.num_ranks();
  const bool compact = params.shape.layout == Layout::kCompact;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::int64_t row = params.routing.send_row[token * num_ranks + rank];
    if (row == kNoRow) continue;
    if (compact) {
      describe_compact(params, token, rank, row);
      if (params.scales.data != nullptr) {
        copy_scales(params.scales, token,
                    part_of_rank<std::byte>(params, rank, ReceivePart::kScales) +
                        static_cast<std::size_t>(row) * params.shape.scale_bytes);
      }
    }
    if (params.is_cached()) continue;
    if (threadIdx.x % warpSize == 0) {
      part_of_rank<std::int32_t>(params, rank, ReceivePart::kSourceToken)[row] =
          static_cast<std::int32_t>(token);
    }
    if (!compact) describe_expert_rows(params, token, rank, row);
  }
  if (!compact) fill_expert_rows(params, token);
}

}  // namespace moelink::kernels
