// Role describe: some warps write what goes with the payload: scales, top-k lists, origins.
#pragma once

#include <cstdint>

#include "kernels/dispatch/params.hpp"
#include "kernels/dispatch/route.cuh"
#include "protocol/expert_map.hpp"

namespace moelink::kernels {

// The calling thread's place among those of the role. Work is dealt element by element, so that
// neighbours write neighbouring words and every thread has many independent accesses in flight.
struct Crew {
  int index;
  int size;
};

// Elements that a thread takes at a time.
constexpr int kDescribeUnroll = 4;

// The elements of a range of tokens, `per_token` each. Numbers of 32 bits, as plan_dispatch() sees
// to: elements are divided into tokens one by one.
template <class Visit>
__device__ void for_each_element(Crew crew, TokenRange tokens, int per_token, const Visit& visit) {
  const int end = static_cast<int>(tokens.end) * per_token;
#pragma unroll kDescribeUnroll
  for (int i = static_cast<int>(tokens.begin) * per_token + crew.index; i < end; i += crew.size) {
    visit(i);
  }
}

template <class T>
__device__ T* part_of_rank(const DispatchParams& params, int rank, ReceivePart part) {
  return reinterpret_cast<T*>(params.domain.peers[rank].part(part));
}

// visit(rank, row) for every rank that a token is sent to.
template <class Visit>
__device__ void for_each_row(const DispatchParams& params, std::int64_t token, const Visit& visit) {
  const int num_ranks = params.domain.num_ranks();
#pragma unroll 1
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::int64_t row = params.routing.send_row[token * num_ranks + rank];
    if (row != kNoRow) visit(rank, row);
  }
}

// Selection `i` of the top-k lists, as the receivers of compact rows see it.
__device__ inline void describe_selection(const DispatchParams& params, const ExpertMap& map,
                                          int i) {
  const int num_topk = params.topk.num_topk;
  const int owner = params.routing.topk_owner[i];
  const float weight = params.topk.weights != nullptr ? params.topk.weights[i] : 0.0F;
  const std::int64_t id = params.topk.ids != nullptr ? params.topk.id(i) : kNoExpert;
  for_each_row(params, i / num_topk, [&](int rank, std::int64_t row) {
    const std::int64_t to = row * num_topk + i % num_topk;
    const bool here = owner == rank;
    if (params.topk.weights != nullptr) {
      part_of_rank<float>(params, rank, ReceivePart::kTopkWeights)[to] = here ? weight : 0.0F;
    }
    if (params.topk.ids == nullptr) return;
    const std::int64_t local = here ? localize(map, id, Rank(rank)) : kNoExpert;
    if (params.topk.id_bytes == 8) {
      part_of_rank<std::int64_t>(params, rank, ReceivePart::kTopkIdx)[to] = local;
    } else {
      part_of_rank<std::int32_t>(params, rank, ReceivePart::kTopkIdx)[to] =
          static_cast<std::int32_t>(local);
    }
  });
}

// Selection `i`, for expert-major rows: its weight, and the lists of the token's rows.
__device__ inline void describe_expert_selection(const DispatchParams& params, int i) {
  const int num_topk = params.topk.num_topk;
  const int owner = params.routing.topk_owner[i];
  const std::int32_t expert_row = params.routing.expert_row[i];
  if (owner >= 0 && params.topk.weights != nullptr) {
    part_of_rank<float>(params, owner, ReceivePart::kTopkWeights)[expert_row] =
        params.topk.weights[i];
  }
  if (params.is_cached()) return;
  for_each_row(params, i / num_topk, [&](int rank, std::int64_t row) {
    part_of_rank<std::int32_t>(params, rank,
                               ReceivePart::kExpertRow)[row * num_topk + i % num_topk] =
        owner == rank ? expert_row : static_cast<std::int32_t>(kNoRow);
  });
}

// visit(rank, row) for every row that carries the token's payload.
template <class Visit>
__device__ void for_each_payload_row(const DispatchParams& params, std::int64_t token,
                                     const Visit& visit) {
  if (params.shape.layout == Layout::kCompact) {
    for_each_row(params, token, visit);
    return;
  }
#pragma unroll 1
  for (std::int64_t i = token * params.topk.num_topk; i < (token + 1) * params.topk.num_topk; ++i) {
    const int owner = params.routing.topk_owner[i];
    if (owner >= 0) visit(owner, std::int64_t{params.routing.expert_row[i]});
  }
}

// Element `i` of the scales, T being its type.
template <class T>
__device__ void copy_scale(const DispatchParams& params, int i) {
  const StridedSource& scales = params.scales;
  const int token = i / scales.num_columns;
  const int column = i % scales.num_columns;
  const T scale = *reinterpret_cast<const T*>(scales.data + token * scales.row_stride_bytes +
                                              column * scales.column_stride_bytes);
  for_each_payload_row(params, token, [&](int rank, std::int64_t row) {
    part_of_rank<T>(params, rank, ReceivePart::kScales)[row * scales.num_columns + column] = scale;
  });
}

__device__ inline void copy_scales(const DispatchParams& params, TokenRange tokens, Crew crew) {
  if (params.scales.data == nullptr) return;
  const int columns = params.scales.num_columns;
  if (params.scales.element_bytes == 4) {
    for_each_element(crew, tokens, columns, [&](int i) { copy_scale<std::uint32_t>(params, i); });
  } else {
    for_each_element(crew, tokens, columns, [&](int i) { copy_scale<std::uint8_t>(params, i); });
  }
}

// Everything but the payload of a range of tokens.
__device__ inline void describe_tokens(const DispatchParams& params, TokenRange tokens, Crew crew) {
  const int num_topk = params.topk.num_topk;
  const int num_ranks = params.domain.num_ranks();
  const ExpertMap map = ExpertMap::make(params.num_experts, num_ranks);
  const bool compact = params.shape.layout == Layout::kCompact;
  copy_scales(params, tokens, crew);
  for_each_element(crew, tokens, num_topk, [&](int i) {
    if (compact) {
      describe_selection(params, map, i);
    } else {
      describe_expert_selection(params, i);
    }
  });
  if (params.is_cached()) return;
  for_each_element(crew, tokens, num_ranks, [&](int i) {
    const std::int32_t row = params.routing.send_row[i];
    if (row == kNoRow) return;
    const int rank = i % num_ranks;
    part_of_rank<std::int32_t>(params, rank, ReceivePart::kSourceToken)[row] = i / num_ranks;
  });
}

}  // namespace moelink::kernels
