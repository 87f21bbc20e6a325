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
    // Three looks side by side: each waits for memory.
#pragma unroll 1
    for (int step = count > 0 ? 1 << ((31 - __clz(count)) & ~1) : 0; step > 0; step /= 4) {
      int further = 0;
#pragma unroll
      for (int i = 1; i < 4; ++i) {
        const int end = below + i * step;
        if (end <= count && tokens[end - 1] < first) further = i * step;
      }
      below += further;
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

// What the staging warps of a block share. Shared memory.
struct StageBoard {
  static constexpr std::uint32_t kNumChunks = 4;

  // Of the first 32 owners, for the chunks that are looked up at a time; see OwnerRows.
  std::int32_t rows_before[kNumChunks][32];
  std::uint32_t gave_up[2];  // 1: chunk c, [c % 2], cannot be staged
};

// The warps of a block that stage. The first one leads: it looks up where a chunk begins and waits
// for the readers of its slot while the others still copy the chunk before, and tells of a chunk,
// with one fence for all, when they copy the next already.
struct StageCrew {
  StageBoard& board;
  int warp;  // the calling one
  int num_warps;
  int num_blocks;  // of the grid that have such warps

  __device__ bool leads() const { return warp == 0; }
  // The leader has prepared a chunk; the others go on.
  __device__ void open(std::uint32_t chunk) const { device::arrive(opened(chunk), size()); }
  __device__ bool await_opened(std::uint32_t chunk) const {
    device::meet(opened(chunk), size());
    return board.gave_up[chunk % 2] == 0;
  }
  // The others have staged a chunk; the leader goes on.
  __device__ void close(std::uint32_t chunk) const { device::arrive(closed(chunk), size()); }
  __device__ void await_closed(std::uint32_t chunk) const { device::meet(closed(chunk), size()); }

 private:
  static __device__ int opened(std::uint32_t chunk) { return 1 + static_cast<int>(chunk % 2); }
  static __device__ int closed(std::uint32_t chunk) { return 3 + static_cast<int>(chunk % 2); }
  __device__ int size() const { return num_warps * warpSize; }
};

// The leader: opens `chunk`, or says that it cannot be staged, as a reader of its slot does not
// come.
__device__ inline bool open_chunk(const CombineParams& params, const OwnerRows& owners,
                                  std::uint32_t chunk, const StageCrew& crew) {
  constexpr std::uint32_t kSlots = StagingRing::kNumSlots;
  StageBoard& board = crew.board;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  board.rows_before[(chunk + 1) % StageBoard::kNumChunks][lane] =
      owners.rows_before(params, chunk + 1);
  const auto all = [](int) { return true; };
  const bool is_free =
      chunk < kSlots ||
      await_progress(params.domain, all, SignalChannel::kConsumed, chunk + 1 - kSlots);
  if (lane == 0 && !is_free) board.gave_up[chunk % 2] = 1;
  __syncwarp();
  crew.open(chunk);
  return is_free;
}

// The leader: all chunks.
__device__ inline void lead_staging(const CombineParams& params, const StageCrew& crew) {
  const Domain& domain = params.domain;
  const std::uint32_t num_chunks = domain.local->ring.num_chunks;
  if (num_chunks == 0) return;
  const OwnerRows owners = OwnerRows::of(params, 0);
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  crew.board.rows_before[0][lane] = 0;
  if (lane < 2) crew.board.gave_up[lane] = 0;
  bool is_open = open_chunk(params, owners, 0, crew);
#pragma unroll 1
  for (std::uint32_t chunk = 0; chunk < num_chunks && is_open; ++chunk) {
    if (chunk + 1 < num_chunks) is_open = open_chunk(params, owners, chunk + 1, crew);
    crew.await_closed(chunk);
    pass_staged(domain, chunk, crew.num_blocks);
  }
}

// Another warp, `index` of those of the grid: its share of all chunks.
template <class Shape>
__device__ void stage_chunks(const CombineParams& params, const CombinePlan& plan, PullPipe& pipe,
                             int index, const StageCrew& crew) {
  const Domain& domain = params.domain;
  const OwnerRows of_first = OwnerRows::of(params, 0);
  const auto before = [&](std::uint32_t chunk) {
    return crew.board.rows_before[chunk % StageBoard::kNumChunks][threadIdx.x % warpSize];
  };
  std::uint32_t step = 0;
#pragma unroll 1
  for (std::uint32_t chunk = 0; chunk < domain.local->ring.num_chunks; ++chunk) {
    if (!crew.await_opened(chunk)) return;
    stage_rows<Shape>(params, plan, pipe, step,
                      ChunkRows(params, of_first, chunk, before(chunk), before(chunk + 1)), index);
#pragma unroll 1
    for (int owner = warpSize; owner < domain.num_ranks(); owner += warpSize) {
      const OwnerRows owners = OwnerRows::of(params, owner);
      const ChunkRows rows(params, owners, chunk, owners.rows_before(params, chunk),
                           owners.rows_before(params, chunk + 1));
      stage_rows<Shape>(params, plan, pipe, step, rows, index);
    }
    device::fence_bulk_copies();
    crew.close(chunk);
  }
}

// One of the warps of a crew, in block `block` of those that have one.
template <class Shape>
__device__ void send_back(const CombineParams& params, const CombinePlan& plan, PullPipe& pipe,
                          int block, const StageCrew& crew) {
  if (crew.leads()) return lead_staging(params, crew);
  stage_chunks<Shape>(params, plan, pipe, (crew.warp - 1) * crew.num_blocks + block, crew);
}

}  // namespace moelink::kernels
