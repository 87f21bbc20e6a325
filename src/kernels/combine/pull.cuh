// Role reduce: a warp pulls the rows of its tokens from their ranks and adds them up in flight.
#pragma once

#include <cstdint>

#include "device/codec.cuh"
#include "device/piece_pipe.cuh"
#include "kernels/combine/params.hpp"
#include "kernels/combine/roles.hpp"

namespace moelink::kernels {

using PullPipe = device::PiecePipe<kNumPullStages>;

// The ranks that return a row for one token, ascending. All lanes of a warp run it alike.
class SourceList {
 public:
  __device__ void restart(const CombineParams& params, std::int64_t token) {
    rows_ = params.routing.send_row + token * params.domain.num_ranks();
    base_ = 0;
    look(params);
  }

  // False when there is no further rank.
  __device__ bool next(const CombineParams& params, int& rank, std::int64_t& row) {
    while (left_ == 0) {
      base_ += warpSize;
      if (base_ >= params.domain.num_ranks()) return false;
      look(params);
    }
    const int lane = __ffs(static_cast<int>(left_)) - 1;
    left_ &= left_ - 1;
    rank = base_ + lane;
    row = __shfl_sync(~0U, row_of_lane_, lane);
    return true;
  }

 private:
  __device__ void look(const CombineParams& params) {
    const int rank = base_ + static_cast<int>(threadIdx.x % warpSize);
    row_of_lane_ = rank < params.domain.num_ranks() ? rows_[rank] : -1;
    left_ = __ballot_sync(~0U, row_of_lane_ >= 0);
  }

  const std::int32_t* rows_ = nullptr;
  int base_ = 0;
  unsigned left_ = 0;
  std::int32_t row_of_lane_ = -1;
};

// The pieces that a warp pulls, in the order in which it adds them: token, chunk, rank.
class PullSequence {
 public:
  __device__ PullSequence(const CombineParams& params, std::size_t chunk_bytes, std::int64_t first,
                          std::int64_t end)
      : params_(params), chunk_bytes_(chunk_bytes), token_(first), end_(end) {
    if (token_ < end_) sources_.restart(params_, token_);
  }

  // Starts the load of the next piece, or of nothing when all are on their way.
  __device__ void load_next(PullPipe& pipe) {
    int rank = 0;
    std::int64_t row = 0;
    while (token_ < end_) {
      if (sources_.next(params_, rank, row)) {
        const std::byte* const from = params_.domain.peers[rank].part(ReceivePart::kPayload) +
                                      static_cast<std::size_t>(row) * params_.row_bytes + offset_;
        const std::size_t left = params_.row_bytes - offset_;
        pipe.load(step_++, from, left < chunk_bytes_ ? left : chunk_bytes_);
        return;
      }
      advance();
    }
    pipe.load(step_++, nullptr, 0);
  }

 private:
  __device__ void advance() {
    offset_ += chunk_bytes_;
    if (offset_ >= params_.row_bytes) {
      offset_ = 0;
      token_ += CombineRoles::kNumPullWarps;
    }
    if (token_ < end_) sources_.restart(params_, token_);
  }

  const CombineParams& params_;
  std::size_t chunk_bytes_;
  std::int64_t token_;
  std::int64_t end_;
  std::size_t offset_ = 0;
  std::int64_t step_ = 0;
  SourceList sources_;
};

// The sums of one piece, spread over the lanes of a warp: vector v belongs to lane v % 32.
template <class Codec, int kVectors>
struct PieceSums {
  float values[kVectors][Codec::kPerVector];

  __device__ void clear() {
#pragma unroll
    for (auto& vector : values) {
#pragma unroll
      for (float& value : vector) value = 0.0F;
    }
  }
  __device__ void add(const std::byte* piece, std::size_t bytes) {
    const auto* const vectors = reinterpret_cast<const uint4*>(piece);
    for_each_vector(bytes, [&](int i, std::size_t at) { Codec::add(values[i], vectors[at]); });
  }
  __device__ void add_rounded(const PieceSums& lower) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int j = 0; j < Codec::kPerVector; ++j) values[i][j] += Codec::round(lower.values[i][j]);
    }
  }
  __device__ void store(std::byte* piece, std::size_t bytes) const {
    auto* const vectors = reinterpret_cast<uint4*>(piece);
    for_each_vector(bytes, [&](int i, std::size_t at) { vectors[at] = Codec::pack(values[i]); });
  }

 private:
  template <class Visit>
  static __device__ void for_each_vector(std::size_t bytes, const Visit& visit) {
    const std::size_t count = bytes / sizeof(uint4);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const std::size_t at = threadIdx.x % warpSize + static_cast<unsigned>(i * warpSize);
      if (at < count) visit(i, at);
    }
  }
};

// Adds the addends of one piece. kNodes: those of a node are rounded before they join the sum.
template <class Codec, bool kNodes>
class PieceReduction {
 public:
  __device__ void start(const CombineParams& params, std::size_t at, std::size_t bytes) {
    sums_.clear();
    node_ = Node(-1);
    if constexpr (kNodes) of_node_.clear();
    if (params.bias_0 != nullptr) sums_.add(params.bias_0 + at, bytes);
    if (params.bias_1 != nullptr) sums_.add(params.bias_1 + at, bytes);
  }
  __device__ void add(const Topology& topology, Rank rank, const std::byte* piece,
                      std::size_t bytes) {
    if constexpr (kNodes) {
      if (topology.node_of(rank) != node_) close_node();
      node_ = topology.node_of(rank);
      of_node_.add(piece, bytes);
    } else {
      sums_.add(piece, bytes);
    }
  }
  __device__ void finish(std::byte* out, std::size_t bytes) {
    if constexpr (kNodes) close_node();
    sums_.store(out, bytes);
  }

 private:
  __device__ void close_node() {
    sums_.add_rounded(of_node_);
    of_node_.clear();
  }

  static constexpr int kVectors = max_pull_bytes(kNodes ? 2 : 1) / sizeof(uint4) / 32;

  PieceSums<Codec, kVectors> sums_;
  PieceSums<Codec, kVectors> of_node_;  // used with kNodes only
  Node node_;
};

// One warp: tokens first, first + 8, ... below `end`.
template <class Codec, bool kNodes>
__device__ void pull_tokens(const CombineParams& params, PullPipe& pipe, std::size_t chunk_bytes,
                            std::int64_t first, std::int64_t end) {
  PullSequence ahead(params, chunk_bytes, first, end);
  for (int i = 0; i < kNumPullStages - 1; ++i) ahead.load_next(pipe);
  PieceReduction<Codec, kNodes> reduction;
  SourceList sources;
  std::int64_t step = 0;
  for (std::int64_t token = first; token < end; token += CombineRoles::kNumPullWarps) {
    for (std::size_t offset = 0; offset < params.row_bytes; offset += chunk_bytes) {
      const std::size_t at = static_cast<std::size_t>(token) * params.row_bytes + offset;
      const std::size_t left = params.row_bytes - offset;
      const std::size_t bytes = left < chunk_bytes ? left : chunk_bytes;
      reduction.start(params, at, bytes);
      sources.restart(params, token);
      int rank = 0;
      std::int64_t row = 0;
      while (sources.next(params, rank, row)) {
        pipe.await(step);
        reduction.add(params.domain.topology, Rank(rank), pipe.piece(step), bytes);
        ++step;
        ahead.load_next(pipe);
      }
      reduction.finish(params.out + at, bytes);
    }
  }
}

// One warp: the weights of one token's selections, as their ranks return them.
__device__ inline void combine_weights(const CombineParams& params, std::int64_t token) {
  const int k = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.num_topk;
  if (k >= num_topk) return;
  const auto weights_of = [&](int rank) {
    return reinterpret_cast<const float*>(
        params.domain.peers[rank].part(ReceivePart::kTopkWeights));
  };
  const std::int64_t selection = token * num_topk + k;
  float sum = 0.0F;
  if (params.layout == Layout::kExpertMajor) {
    const int owner = params.routing.topk_owner[selection];
    if (owner >= 0) sum = weights_of(owner)[params.routing.expert_row[selection]];
  } else {
    const int num_ranks = params.domain.num_ranks();
    for (int rank = 0; rank < num_ranks; ++rank) {
      const std::int64_t row = params.routing.send_row[token * num_ranks + rank];
      if (row >= 0) sum += weights_of(rank)[row * num_topk + k];
    }
  }
  params.out_weights[selection] = sum;
}

}  // namespace moelink::kernels
