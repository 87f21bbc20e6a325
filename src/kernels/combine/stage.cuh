// Role send_back: warps bring rows of the local experts into the ring that their owners read.
#pragma once

#include <cstdint>

#include "kernels/carry_rows.cuh"
#include "kernels/combine/params.hpp"
#include "kernels/combine/pull.cuh"
#include "kernels/combine/reduce.cuh"
#include "kernels/combine/ring.cuh"

namespace moelink::kernels {

// The rows of one chunk for 32 owners from `first_owner` on, numbered in the order (owner, token).
// A lane knows those of one owner. All lanes of a warp run it alike.
class ChunkRows {
 public:
  __device__ ChunkRows(const CombineParams& params, std::uint32_t chunk, int first_owner)
      : params_(params) {
    const Rank owner(first_owner + lane());
    const bool exists = owner.value() < params.domain.num_ranks();
    int length = 0;
    if (exists && !params.reads_itself(owner.value())) length = find(chunk, owner);
    int end = length;
#pragma unroll 1
    for (int step = 1; step < warpSize; step *= 2) {
      const int lower = __shfl_up_sync(~0U, end, static_cast<unsigned>(step));
      if (lane() >= step) end += lower;
    }
    number_ = length > 0 ? end - length : kNone;
    count_ = __shfl_sync(~0U, end, warpSize - 1);
  }

  __device__ int count() const { return count_; }
  // The compact row of number `i`.
  __device__ int row(int i) const {
    const int of = lane_of(i);
    return __shfl_sync(~0U, row_, of) + (i - __shfl_sync(~0U, number_, of));
  }
  // Its row in the ring.
  __device__ int ring_row(int i) const {
    return params_.received.source_token[row(i)] + __shfl_sync(~0U, shift_, lane_of(i));
  }

 private:
  static constexpr int kNone = 0x7fffffff;

  static __device__ int lane() { return static_cast<int>(threadIdx.x % warpSize); }

  __device__ int lane_of(int i) const {
    return 31 - __clz(static_cast<int>(__ballot_sync(~0U, number_ <= i)));
  }
  // Sets where the owner's rows begin, here and in the ring; returns how many there are.
  __device__ int find(std::uint32_t chunk, Rank owner) {
    const Domain& domain = params_.domain;
    const StagingRing& ring = domain.local->ring;
    const CountMatrix counts{params_.routing.counts, domain.num_ranks(), params_.num_experts};
    const auto num_tokens = static_cast<std::int64_t>(
        domain.exchange(domain.rank, current_epoch(domain), owner)->num_tokens);
    const std::int64_t first = chunk_begin(num_tokens, chunk, ring.num_chunks);
    const std::int64_t end = chunk_begin(num_tokens, chunk + 1, ring.num_chunks);
    const auto block = static_cast<int>(counts.tokens_before(owner, domain.rank));
    const int count = counts.tokens(owner, domain.rank);
    const std::int32_t* const tokens = params_.received.source_token + block;
    // Both bounds side by side: each look waits for memory.
    int below_first = 0;
    int below_end = 0;
#pragma unroll 1
    for (int step = count > 0 ? 1 << (31 - __clz(count)) : 0; step > 0; step /= 2) {
      const int a = below_first + step;
      const int b = below_end + step;
      const bool a_is_below = a <= count && tokens[a - 1] < first;
      const bool b_is_below = b <= count && tokens[b - 1] < end;
      if (a_is_below) below_first = a;
      if (b_is_below) below_end = b;
    }
    row_ = block + below_first;
    shift_ = static_cast<int>(ring.first_row(chunk, owner, domain.num_ranks()) - first);
    return below_end - below_first;
  }

  const CombineParams& params_;
  int row_ = 0;    // compact row of the owner's first
  int shift_ = 0;  // from tokens to rows of the ring
  int number_;     // of that row; kNone: the owner has none
  int count_;
};

// Rows of several local experts that a warp adds up, see LoadAhead: lanes ascending, then rounded.
class StageWork {
 public:
  __device__ StageWork(const CombineParams& params, const CombinePlan& plan, const ChunkRows& rows,
                       int index)
      : params_(params), plan_(plan), rows_(rows), pieces_(plan, index) {
    if (!done()) restart();
  }

  __device__ bool done() const { return pieces_.row() >= rows_.count(); }
  __device__ void advance() {
    pieces_.advance(plan_, plan_.staging);
    if (!done()) restart();
  }
  __device__ bool is_ready(Patience) const { return true; }
  __device__ bool begin() const { return true; }
  __device__ bool end() const { return true; }

  __device__ bool next_node(Node& node) {
    node = Node(0);
    return next_lane() >= 0;
  }
  __device__ bool next_source(const std::byte*& from) {
    const int lane = next_lane();
    if (lane < 0) return false;
    const std::int32_t row = __shfl_sync(~0U, row_of_lane_, lane);
    from = params_.x + static_cast<std::size_t>(row) * params_.row_bytes + pieces_.offset(plan_);
    return true;
  }

  __device__ std::uint32_t bytes() const { return pieces_.bytes(plan_, params_.row_bytes); }
  __device__ std::byte* out() const {
    return params_.ring +
           static_cast<std::size_t>(rows_.ring_row(pieces_.row())) * params_.row_bytes +
           pieces_.offset(plan_);
  }
  __device__ const std::byte* bias(int) const { return nullptr; }

 private:
  __device__ void restart() {
    const int lane = static_cast<int>(threadIdx.x % warpSize);
    const std::int64_t row = rows_.row(pieces_.row());
    row_of_lane_ = lane < params_.num_topk
                       ? params_.received.expert_row[row * params_.num_topk + lane]
                       : static_cast<std::int32_t>(kNoRow);
    left_ = __ballot_sync(~0U, row_of_lane_ >= 0);
  }
  __device__ int next_lane() {
    const int lane = __ffs(static_cast<int>(left_)) - 1;
    left_ &= left_ - 1;
    return lane;
  }

  const CombineParams& params_;
  const CombinePlan& plan_;
  const ChunkRows& rows_;
  PieceWalk pieces_;
  std::int32_t row_of_lane_ = -1;
  unsigned left_ = 0;
};

// Warp `index` of those that stage: its share of the rows. `step`: of the pipe, goes on.
template <class Shape>
__device__ void stage_rows(const CombineParams& params, const CombinePlan& plan, PullPipe& pipe,
                           std::uint32_t& step, const ChunkRows& rows, int index) {
  if (params.layout == Layout::kExpertMajor) {
    using OfOneRank = StagingShape<Shape>;
    reduce_rows<OfOneRank>(StageWork(params, plan, rows, index), pipe, step);
    return;
  }
  const RowPieces pieces{index, plan.staging.num_warps, rows.count(), params.row_bytes,
                         plan.chunk_bytes};
  step = carry_rows(
      pipe, step, pieces,
      [&](int i) { return params.x + static_cast<std::size_t>(rows.row(i)) * params.row_bytes; },
      [&](std::uint32_t at, int i, std::size_t offset, std::size_t bytes) {
        const int row = rows.ring_row(i);
        std::byte* const to = params.ring + static_cast<std::size_t>(row) * params.row_bytes;
        pipe.put(at, threadIdx.x % warpSize == 0 ? to + offset : nullptr, bytes);
      });
}

// Warp `index` of those that stage: all chunks, each once its slot has been read by all owners.
template <class Shape>
__device__ void stage_chunks(const CombineParams& params, const CombinePlan& plan, PullPipe& pipe,
                             int index, const StageCrew& crew) {
  const Domain& domain = params.domain;
  constexpr std::uint32_t kSlots = StagingRing::kNumSlots;
  std::uint32_t step = 0;
#pragma unroll 1
  for (std::uint32_t chunk = 0; chunk < domain.local->ring.num_chunks; ++chunk) {
    // Looked up first: that takes its time, and needs nobody.
    const ChunkRows of_first(params, chunk, 0);
    const auto all = [](int) { return true; };
    if (chunk >= kSlots && !has_come(domain, all, SignalChannel::kConsumed, chunk + 1 - kSlots,
                                     Patience::kUntilDeadline)) {
      return;
    }
    stage_rows<Shape>(params, plan, pipe, step, of_first, index);
#pragma unroll 1
    for (int owner = warpSize; owner < domain.num_ranks(); owner += warpSize) {
      const ChunkRows rows(params, chunk, owner);
      stage_rows<Shape>(params, plan, pipe, step, rows, index);
    }
    device::fence_bulk_copies();
    pass_staged(domain, chunk, crew);
  }
}

}  // namespace moelink::kernels
