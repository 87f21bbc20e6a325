// Role reduce: a warp pulls the rows of its tokens from their ranks and adds them up in flight.
#pragma once

#include <cstdint>

#include "kernels/combine/params.hpp"
#include "kernels/combine/reduce.cuh"
#include "kernels/combine/ring.cuh"
#include "kernels/combine/roles.hpp"

namespace moelink::kernels {

// The pieces of rows that the warp `index` of a crew makes, in the order (row, piece).
class PieceWalk {
 public:
  __device__ PieceWalk(const CombinePlan& plan, int index)
      : row_(index / plan.num_chunks), piece_(index % plan.num_chunks) {}

  __device__ void advance(const CombinePlan& plan, const WarpCrew& crew) {
    row_ += crew.row_step;
    piece_ += crew.piece_step;
    if (piece_ < plan.num_chunks) return;
    piece_ -= plan.num_chunks;
    ++row_;
  }
  __device__ int row() const { return row_; }
  __device__ std::uint32_t offset(const CombinePlan& plan) const {
    return static_cast<std::uint32_t>(piece_) * plan.chunk_bytes;
  }
  __device__ std::uint32_t bytes(const CombinePlan& plan, std::size_t row_bytes) const {
    const std::uint32_t left = static_cast<std::uint32_t>(row_bytes) - offset(plan);
    return left < plan.chunk_bytes ? left : plan.chunk_bytes;
  }

 private:
  int row_;
  int piece_;
};

// The ranks that return a row for one token, ascending. All lanes of a warp run it alike.
class SourceList {
 public:
  __device__ void restart(const CombineParams& params, int token) {
    token_ = token;
    base_ = 0;
    look(params);
  }

  // False when there is no further rank.
  __device__ bool next(const CombineParams& params, int& rank) {
#pragma unroll 1
    while (left_ == 0) {
      base_ += warpSize;
      if (base_ >= params.domain.num_ranks()) return false;
      look(params);
    }
    const int lane = __ffs(static_cast<int>(left_)) - 1;
    left_ &= left_ - 1;
    rank = base_ + lane;
    return true;
  }
  // Of the rank that next() has given.
  __device__ int row_at(int rank) const { return __shfl_sync(~0U, row_of_lane_, rank - base_); }

 private:
  __device__ void look(const CombineParams& params) {
    const int num_ranks = params.domain.num_ranks();
    const int rank = base_ + static_cast<int>(threadIdx.x % warpSize);
    const std::int32_t* const rows = params.routing.send_row + std::int64_t{token_} * num_ranks;
    row_of_lane_ = rank < num_ranks ? rows[rank] : -1;
    left_ = __ballot_sync(~0U, row_of_lane_ >= 0);
  }

  int token_ = 0;
  int base_ = 0;
  unsigned left_ = 0;
  std::int32_t row_of_lane_ = -1;
};

// The output rows of a warp, see LoadAhead.
class PullWork {
 public:
  __device__ PullWork(const CombineParams& params, const CombinePlan& plan, int index,
                      StagedChunks& staged)
      : params_(params), plan_(plan), staged_(staged), pieces_(plan, index), cursor_(params) {
    if (!done()) sources_.restart(params_, pieces_.row());
  }

  __device__ bool done() const { return pieces_.row() >= params_.num_tokens; }
  __device__ void advance() {
    pieces_.advance(plan_, plan_.pulling);
    if (!done()) sources_.restart(params_, pieces_.row());
  }
  __device__ bool is_ready(Patience patience) {
#pragma unroll 1
    while (cursor_.is_before(pieces_.row())) cursor_.advance(params_);
    return staged_.has(cursor_.chunk(), patience);
  }
  __device__ bool begin() {
#pragma unroll 1
    for (; cursor_.is_before(pieces_.row()); cursor_.advance(params_)) {
      if (!staged_.release(cursor_.chunk())) return false;
    }
    return true;
  }
  __device__ bool end() {
#pragma unroll 1
    for (; !cursor_.is_behind_all(params_); cursor_.advance(params_)) {
      if (!staged_.release(cursor_.chunk())) return false;
    }
    return true;
  }

  __device__ bool next_node(Node& node) {
    int rank = 0;
    if (!sources_.next(params_, rank)) return false;
    node = params_.domain.topology.node_of(Rank(rank));
    return true;
  }
  __device__ bool next_source(const std::byte*& from) {
    int rank = 0;
    if (!sources_.next(params_, rank)) return false;
    const device::PeerParts& peer = params_.domain.peers[rank];
    std::int64_t row = sources_.row_at(rank);
    if (peer.source == CombineSource::kStaged && !params_.reads_itself(rank)) row = ring_row();
    from = peer.part(ReceivePart::kPayload) + static_cast<std::size_t>(row) * params_.row_bytes +
           pieces_.offset(plan_);
    return true;
  }

  __device__ std::uint32_t bytes() const { return pieces_.bytes(plan_, params_.row_bytes); }
  __device__ std::byte* out() const { return params_.out + place(); }
  __device__ const std::byte* bias(int i) const {
    const std::byte* const bias = i == 0 ? params_.bias_0 : params_.bias_1;
    return bias == nullptr ? nullptr : bias + place();
  }

 private:
  __device__ std::size_t place() const {
    return static_cast<std::size_t>(pieces_.row()) * params_.row_bytes + pieces_.offset(plan_);
  }
  // Where the holders of the token's rows have staged them.
  __device__ std::int64_t ring_row() const {
    const Domain& domain = params_.domain;
    return staged_.ring().first_row(cursor_.chunk(), domain.rank, domain.num_ranks()) +
           (pieces_.row() - cursor_.begin());
  }

  const CombineParams& params_;
  const CombinePlan& plan_;
  StagedChunks& staged_;
  PieceWalk pieces_;
  ChunkCursor cursor_;
  SourceList sources_;
};

// Selection `i` of the top-k lists: its weight, as the ranks return it.
__device__ inline float combined_weight(const CombineParams& params, std::int64_t i) {
  const auto weights_of = [&](int rank) {
    return reinterpret_cast<const float*>(
        params.domain.peers[rank].part(ReceivePart::kTopkWeights));
  };
  if (params.layout == Layout::kExpertMajor) {
    const int owner = params.routing.topk_owner[i];
    return owner < 0 ? 0.0F : weights_of(owner)[params.routing.expert_row[i]];
  }
  const int num_ranks = params.domain.num_ranks();
  const int per_node = params.domain.topology.ranks_per_node();
  const std::int64_t token = i / params.num_topk;
  float sum = 0.0F;
  float node_sum = 0.0F;  // nodes are summed first, as where a network lies between them
#pragma unroll 1
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::int64_t row = params.routing.send_row[token * num_ranks + rank];
    if (row >= 0) node_sum += weights_of(rank)[row * params.num_topk + i % params.num_topk];
    if ((rank + 1) % per_node != 0) continue;
    sum += node_sum;
    node_sum = 0.0F;
  }
  return sum;
}

// Warp `index` of `num_warps`: its share of the weights of all selections.
__device__ inline void combine_weights(const CombineParams& params, int index, int num_warps) {
  if (params.out_weights == nullptr) return;
  const std::int64_t end = params.num_tokens * params.num_topk;
  const int first = index * warpSize + static_cast<int>(threadIdx.x % warpSize);
#pragma unroll 4
  for (std::int64_t i = first; i < end; i += num_warps * warpSize) {
    params.out_weights[i] = combined_weight(params, i);
  }
}

// Warp `index` of those that pull. The weights come first: with the last chunk the peers are told
// that all has been read.
template <class Shape>
__device__ void pull_rows(const CombineParams& params, const CombinePlan& plan, PullPipe& pipe,
                          int index, PullBoard& board) {
  combine_weights(params, index, plan.pulling.num_warps);
  StagedChunks staged(params.domain, plan, board);
  std::uint32_t step = 0;
  reduce_rows<Shape>(PullWork(params, plan, index, staged), pipe, step);
}

}  // namespace moelink::kernels
