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

// The pieces of output rows that a warp makes: every kNumPullWarps-th, in the order (token, chunk).
class OutputPieces {
 public:
  // Starts with piece `first`, counted over all tokens; `end` likewise.
  __device__ OutputPieces(const CombineParams& params, const CombinePlan& plan, std::int64_t first,
                          std::int64_t end)
      : left_(end - first),
        num_chunks_(plan.num_chunks),
        row_bytes_(params.row_bytes),
        chunk_bytes_(plan.chunk_bytes),
        token_(first / plan.num_chunks),
        chunk_(static_cast<int>(first % plan.num_chunks)) {}

  __device__ bool done() const { return left_ <= 0; }
  __device__ void advance() {
    left_ -= CombineRoles::kNumPullWarps;
    chunk_ += CombineRoles::kNumPullWarps;
    while (chunk_ >= num_chunks_) {
      chunk_ -= num_chunks_;
      ++token_;
    }
  }
  __device__ std::int64_t token() const { return token_; }
  __device__ std::size_t offset() const { return static_cast<std::size_t>(chunk_) * chunk_bytes_; }
  __device__ std::size_t bytes() const {
    const std::size_t left = row_bytes_ - offset();
    return left < chunk_bytes_ ? left : chunk_bytes_;
  }

 private:
  std::int64_t left_;
  int num_chunks_;
  std::size_t row_bytes_;
  std::size_t chunk_bytes_;
  std::int64_t token_;
  int chunk_;
};

// The pieces that a warp pulls, in the order in which it adds them: output piece, rank.
class PullSequence {
 public:
  __device__ PullSequence(const CombineParams& params, const OutputPieces& pieces)
      : params_(params), pieces_(pieces) {
    if (!pieces_.done()) sources_.restart(params_, pieces_.token());
  }

  // Starts the load of the next piece, or of nothing when all are on their way.
  __device__ void load_next(PullPipe& pipe) {
    int rank = 0;
    std::int64_t row = 0;
    while (!pieces_.done()) {
      if (sources_.next(params_, rank, row)) {
        const std::byte* const rows = params_.domain.peers[rank].part(ReceivePart::kPayload);
        pipe.load(step_++,
                  rows + static_cast<std::size_t>(row) * params_.row_bytes + pieces_.offset(),
                  pieces_.bytes());
        return;
      }
      pieces_.advance();
      if (!pieces_.done()) sources_.restart(params_, pieces_.token());
    }
    pipe.load(step_++, nullptr, 0);
  }

 private:
  const CombineParams& params_;
  OutputPieces pieces_;
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

// One warp.
template <class Codec, bool kNodes>
__device__ void pull_pieces(const CombineParams& params, PullPipe& pipe, OutputPieces pieces) {
  PullSequence ahead(params, pieces);
  for (int i = 0; i < kNumPullStages - 1; ++i) ahead.load_next(pipe);
  PieceReduction<Codec, kNodes> reduction;
  SourceList sources;
  std::int64_t step = 0;
  for (; !pieces.done(); pieces.advance()) {
    const std::size_t bytes = pieces.bytes();
    const std::size_t at =
        static_cast<std::size_t>(pieces.token()) * params.row_bytes + pieces.offset();
    reduction.start(params, at, bytes);
    sources.restart(params, pieces.token());
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
  const std::int64_t token = i / params.num_topk;
  float sum = 0.0F;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::int64_t row = params.routing.send_row[token * num_ranks + rank];
    if (row >= 0) sum += weights_of(rank)[row * params.num_topk + i % params.num_topk];
  }
  return sum;
}

// All threads of a block: selections `begin` to `end`.
__device__ inline void combine_weights(const CombineParams& params, std::int64_t begin,
                                       std::int64_t end) {
#pragma unroll 4
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    params.out_weights[i] = combined_weight(params, i);
  }
}

}  // namespace moelink::kernels
