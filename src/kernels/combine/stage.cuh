// Role send_back: warps bring rows of the local experts into the ring that their owners read.
#pragma once

#include <cstdint>

#include "device/meet.cuh"
#include "kernels/carry_rows.cuh"
#include "kernels/combine/params.hpp"
#include "kernels/combine/pull.cuh"
#include "kernels/combine/reduce.cuh"
#include "kernels/combine/ring.cuh"

namespace moelink::kernels {

// What a lane knows of one of 32 owners, from `first_owner` on, whose tokens this rank has rows of.
struct OwnerRows {
  Rank owner{0};
  std::int64_t num_tokens = 0;  // T of the owner
  int begin = 0;                // compact row of its first
  int count = 0;                // 0 also if they do not pass through the ring

  static __device__ OwnerRows of(const CombineParams& params, int first_owner) {
    const Domain& domain = params.domain;
    const Rank owner(first_owner + static_cast<int>(threadIdx.x % warpSize));
    if (owner.value() >= domain.num_ranks() || params.reads_itself(owner.value())) return {};
    const CountMatrix counts{params.routing.counts, domain.num_ranks(), params.num_experts};
    const ExchangeBlock& block = *domain.exchange(domain.rank, current_epoch(domain), owner);
    return {owner, static_cast<std::int64_t>(block.num_tokens),
            static_cast<int>(counts.tokens_before(owner, domain.rank)),
            counts.tokens(owner, domain.rank)};
  }
  // How many of the rows belong to tokens of earlier chunks.
  __device__ int rows_before(const CombineParams& params, std::uint32_t chunk) const {
    const std::int64_t first = chunk_begin(num_tokens, chunk, params.domain.local->ring.num_chunks);
    const std::int32_t* const tokens = params.received.source_token + begin;
    int below = 0;
#pragma unroll 1
    for (int step = count > 0 ? 1 << (31 - __clz(count)) : 0; step > 0; step /= 2) {
      const int further = below + step;
      if (further <= count && tokens[further - 1] < first) below = further;
    }
    return below;
  }
};

// The rows of one chunk for those owners, numbered in the order (owner, token). All lanes of a warp
// run it alike.
class ChunkRows {
 public:
  // `before`, `end`: of the lane's owner, rows_before() of this chunk and the next.
  __device__ ChunkRows(const CombineParams& params, const OwnerRows& owners, std::uint32_t chunk,
                       int before, int end)
      : params_(params), row_(owners.begin + before) {
    const StagingRing& ring = params.domain.local->ring;
    shift_ = static_cast<int>(ring.first_row(chunk, owners.owner, params.domain.num_ranks()) -
                              chunk_begin(owners.num_tokens, chunk, ring.num_chunks));
    const int length = end - before;
    int sum = length;
#pragma unroll 1
    for (int step = 1; step < warpSize; step *= 2) {
      const int lower = __shfl_up_sync(~0U, sum, static_cast<unsigned>(step));
      if (lane() >= step) sum += lower;
    }
    number_ = length > 0 ? sum - length : kNone;
    count_ = __shfl_sync(~0U, sum, warpSize - 1);
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

  const CombineParams& params_;
  int row_;     // compact row of the owner's first
  int shift_;   // from tokens to rows of the ring
  int number_;  // of that row; kNone: the owner has none
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

// The pieces of a chunk's rows that a warp copies as they are.
class StagePieces {
 public:
  __device__ StagePieces(const CombineParams& params, const CombinePlan& plan,
                         const ChunkRows& rows, int index)
      : params_(params), plan_(plan), rows_(rows), pieces_(plan, index) {}

  __device__ bool done() const { return pieces_.row() >= rows_.count(); }
  __device__ void advance() { pieces_.advance(plan_, plan_.staging); }
  __device__ int row() const { return pieces_.row(); }
  __device__ std::size_t offset() const { return pieces_.offset(plan_); }
  __device__ std::size_t bytes() const { return pieces_.bytes(plan_, params_.row_bytes); }

 private:
  const CombineParams& params_;
  const CombinePlan& plan_;
  const ChunkRows& rows_;
  PieceWalk pieces_;
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
  step = carry_rows(
      pipe, step, StagePieces(params, plan, rows, index),
      [&](int i) { return params.x + static_cast<std::size_t>(rows.row(i)) * params.row_bytes; },
      [&](std::uint32_t at, int i, std::size_t offset, std::size_t bytes) {
        const int row = rows.ring_row(i);
        std::byte* const to = params.ring + static_cast<std::size_t>(row) * params.row_bytes;
        pipe.put(at, threadIdx.x % warpSize == 0 ? to + offset : nullptr, bytes);
      });
}

// What the staging warps of a block share. To look up where a chunk begins takes longer than to
// stage it, so that is done for several chunks at a time, for the first 32 owners.
struct StageBoard {
  static constexpr std::uint32_t kNumChunks = 8;

  std::int32_t rows_before[kNumChunks + 1][32];
  bool may_stage;
};

// The warps of a block that stage. They take chunk after chunk together: one of them waits for the
// readers of the slot, and one fence serves all.
struct StageCrew {
  StageBoard& board;  // shared memory
  int warp;           // the calling one, of them
  int num_warps;
  int num_blocks;  // of the grid that have such warps

  __device__ void meet() const {
    constexpr int kBarrier = 1;
    device::meet(kBarrier, num_warps * warpSize);
  }
};

// All warps of a crew: false if they cannot stage `chunk`, since a reader of its slot does not
// come.
__device__ inline bool begin_chunk(const CombineParams& params, const OwnerRows& owners,
                                   std::uint32_t chunk, const StageCrew& crew) {
  const Domain& domain = params.domain;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  if (chunk % StageBoard::kNumChunks == 0) {
    const std::uint32_t num_left = domain.local->ring.num_chunks - chunk;
    const auto last = static_cast<int>(min(StageBoard::kNumChunks, num_left));
#pragma unroll 1
    for (int i = crew.warp; i <= last; i += crew.num_warps) {
      crew.board.rows_before[i][lane] =
          owners.rows_before(params, chunk + static_cast<std::uint32_t>(i));
    }
  }
  if (crew.warp == 0) {
    constexpr std::uint32_t kSlots = StagingRing::kNumSlots;
    const auto all = [](int) { return true; };
    const bool is_free = chunk < kSlots || has_come(domain, all, SignalChannel::kConsumed,
                                                    chunk + 1 - kSlots, Patience::kUntilDeadline);
    if (lane == 0) crew.board.may_stage = is_free;
  }
  crew.meet();
  return crew.board.may_stage;
}

// Warp `index` of those that stage: all chunks, each once its slot has been read by all owners.
template <class Shape>
__device__ void stage_chunks(const CombineParams& params, const CombinePlan& plan, PullPipe& pipe,
                             int index, const StageCrew& crew) {
  const Domain& domain = params.domain;
  const OwnerRows of_first = OwnerRows::of(params, 0);
  std::uint32_t step = 0;
#pragma unroll 1
  for (std::uint32_t chunk = 0; chunk < domain.local->ring.num_chunks; ++chunk) {
    if (!begin_chunk(params, of_first, chunk, crew)) return;
    const auto* const before = crew.board.rows_before[chunk % StageBoard::kNumChunks];
    const auto lane = threadIdx.x % warpSize;
    stage_rows<Shape>(params, plan, pipe, step,
                      ChunkRows(params, of_first, chunk, before[lane], before[warpSize + lane]),
                      index);
#pragma unroll 1
    for (int owner = warpSize; owner < domain.num_ranks(); owner += warpSize) {
      const OwnerRows owners = OwnerRows::of(params, owner);
      const ChunkRows rows(params, owners, chunk, owners.rows_before(params, chunk),
                           owners.rows_before(params, chunk + 1));
      stage_rows<Shape>(params, plan, pipe, step, rows, index);
    }
    device::fence_bulk_copies();
    crew.meet();
    if (crew.warp == 0) pass_staged(domain, chunk, crew.num_blocks);
  }
}

}  // namespace moelink::kernels
