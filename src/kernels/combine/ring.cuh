// How far the ranks of a combine have come with staged chunks.
#pragma once

#include <cstdint>

#include "device/domain.hpp"
#include "device/memory_order.cuh"
#include "device/wait.cuh"
#include "kernels/exchange/exchange.cuh"
#include "protocol/staging_plan.hpp"

namespace moelink::kernels {

enum class Patience : std::uint8_t { kLookOnce, kUntilDeadline };

// One warp. True at all lanes once every rank that `concerns` names has brought `channel` to
// `progress` (acquire). False if the wait has failed.
template <class Concerns>
__device__ bool await_progress(const Domain& domain, const Concerns& concerns,
                               SignalChannel channel, std::uint32_t progress) {
  const Stage stage = channel == SignalChannel::kStaged ? Stage::kReduce : Stage::kSendBack;
  const Epoch epoch = current_epoch(domain);
  const SignalValue value = SignalValue::of(epoch, progress);
  bool came = true;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x % warpSize); i < domain.num_ranks() && came;
       i += warpSize) {
    if (!concerns(i)) continue;
    std::uint64_t* const word = domain.signal(domain.rank, channel, Rank(i));
    came = device::wait_for(domain, {Operation::kCombine, stage, Rank(i), epoch}, word, value);
  }
  came = __all_sync(~0U, came) != 0;
  __syncwarp();  // what one lane has acquired, all have
  return came;
}

// One warp: how far all ranks that `concerns` names have brought `channel` (acquire).
template <class Concerns>
__device__ std::uint32_t look_at_progress(const Domain& domain, const Concerns& concerns,
                                          SignalChannel channel) {
  const Epoch epoch = current_epoch(domain);
  std::uint32_t least = ~0U;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x % warpSize); i < domain.num_ranks(); i += warpSize) {
    if (!concerns(i)) continue;
    const SignalValue seen(device::load_acquire_sys(domain.signal(domain.rank, channel, Rank(i))));
    least = min(least, seen.epoch() == epoch ? seen.progress() : 0);
  }
  least = __reduce_min_sync(~0U, least);
  __syncwarp();  // what one lane has acquired, all have
  return least;
}

// One warp: tells all ranks that this one has passed `chunk` on `channel`. Release.
__device__ inline void signal_chunk(const Domain& domain, SignalChannel channel,
                                    std::uint32_t chunk) {
  const SignalValue value = SignalValue::of(current_epoch(domain), chunk + 1);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x % warpSize); i < domain.num_ranks(); i += warpSize) {
    std::uint64_t* const word = domain.signal(Rank(i), channel, domain.rank);
    device::SystemWord<std::uint64_t>(*word).store(value.word(), cuda::memory_order_release);
  }
}

// One lane: joins those that have passed a chunk; true for the last of `count`. Of each slot there
// is one counter: whoever passes a chunk knows that all have passed that of kNumSlots before, so
// that chunks never mix.
template <cuda::thread_scope kScope>
__device__ bool is_last_to_pass(std::uint32_t& counter, int count, cuda::memory_order order) {
  const cuda::atomic_ref<std::uint32_t, kScope> passed(counter);
  if (passed.fetch_add(1, order) + 1 != static_cast<std::uint32_t>(count)) return false;
  passed.store(0, cuda::memory_order_relaxed);
  return true;
}

// What the pulling warps of a block share. Shared memory, zero at first.
struct PullBoard {
  std::uint32_t passed[StagingRing::kNumSlots];  // warps that have read the chunk in each slot
  std::uint32_t num_staged;                      // chunks, as far as a warp has seen
};

// Who pulls.
struct PullCrew {
  PullBoard& board;
  int num_warps;   // of this block that pull
  int num_blocks;  // of the grid that have such warps
};

// One warp, when it has read its rows of `chunk`; the last one tells all ranks. Relaxed: the rows
// are in this SM, and nothing was written that others should see. A fence of each warp, which waits
// for everything under way on its SM, would cost microseconds.
__device__ inline void pass_consumed(const Domain& domain, std::uint32_t chunk,
                                     const PullCrew& crew) {
  constexpr std::uint32_t kSlots = StagingRing::kNumSlots;
  __syncwarp();
  int last = 0;
  if (threadIdx.x % warpSize == 0) {
    last = is_last_to_pass<cuda::thread_scope_block>(crew.board.passed[chunk % kSlots],
                                                     crew.num_warps, cuda::memory_order_relaxed) &&
           is_last_to_pass<cuda::thread_scope_device>(domain.local->num_consumed[chunk % kSlots],
                                                      crew.num_blocks, cuda::memory_order_relaxed);
  }
  if (__shfl_sync(~0U, last, 0) == 0) return;
  signal_chunk(domain, SignalChannel::kConsumed, chunk);
}

// One warp of each of `num_blocks` blocks, after all warps there have staged their rows of `chunk`
// and met; the last one tells all ranks. Release: publishes what the warps have written; their bulk
// copies must be complete and fenced.
__device__ inline void pass_staged(const Domain& domain, std::uint32_t chunk, int num_blocks) {
  int last = 0;
  if (threadIdx.x % warpSize == 0) {
    last = is_last_to_pass<cuda::thread_scope_device>(
        domain.local->num_staged[chunk % StagingRing::kNumSlots], num_blocks,
        cuda::memory_order_acq_rel);
  }
  if (__shfl_sync(~0U, last, 0) == 0) return;
  __syncwarp();
  signal_chunk(domain, SignalChannel::kStaged, chunk);
}

// Which chunk the tokens of a warp belong to; they come in ascending order.
class ChunkCursor {
 public:
  // `num_chunks` may be 0: all tokens belong to one chunk that nobody has to wait for.
  __device__ ChunkCursor(std::int64_t num_tokens, std::uint32_t num_chunks)
      : num_tokens_(static_cast<int>(num_tokens)),
        num_chunks_(num_chunks > 0 ? num_chunks : 1),
        end_(first_token(1)) {}

  __device__ std::uint32_t chunk() const { return chunk_; }
  __device__ int begin() const { return begin_; }  // first token
  __device__ bool is_before(int token) const { return token >= end_; }
  __device__ bool is_behind_all() const { return chunk_ >= num_chunks_; }
  __device__ void advance() {
    begin_ = end_;
    ++chunk_;
    if (chunk_ < num_chunks_) end_ = first_token(chunk_ + 1);
  }

 private:
  __device__ int first_token(std::uint32_t chunk) const {
    return static_cast<int>(chunk_begin(num_tokens_, chunk, num_chunks_));
  }

  int num_tokens_;
  std::uint32_t num_chunks_;
  std::uint32_t chunk_ = 0;
  int begin_ = 0;
  int end_;
};

// What one pulling warp knows of the chunks that the ranks have staged for it.
class StagedChunks {
 public:
  __device__ StagedChunks(const Domain& domain, const PullCrew& crew)
      : domain_(domain), crew_(crew), num_known_(ring().num_chunks == 0 ? ~0U : 0) {}

  // Whether all ranks that stage have staged `chunk` (acquire, for bulk copies too).
  __device__ bool has(std::uint32_t chunk, Patience patience) {
    if (chunk < num_known_) return true;
    // A look at the ranks takes its time: the first warp to look does so for its block.
    const cuda::atomic_ref<std::uint32_t, cuda::thread_scope_block> known(crew_.board.num_staged);
    num_known_ = known.load(cuda::memory_order_acquire);
    if (chunk >= num_known_) {
      num_known_ = find_out(chunk, patience);
      if (threadIdx.x % warpSize == 0) {
        known.fetch_max(num_known_, cuda::memory_order_release);
      }
    }
    if (chunk >= num_known_) return false;
    device::fence_bulk_copies();
    return true;
  }
  // When the warp needs nothing of `chunk` any more. False if a rank does not come.
  __device__ bool release(std::uint32_t chunk) {
    if (ring().num_chunks == 0) return true;
    if (!has(chunk, Patience::kUntilDeadline)) return false;
    pass_consumed(domain_, chunk, crew_);
    return true;
  }
  __device__ const StagingRing& ring() const { return domain_.local->ring; }

 private:
  // The number of chunks that have been staged; 0 if `chunk` does not come.
  __device__ std::uint32_t find_out(std::uint32_t chunk, Patience patience) const {
    // This rank too, even if it reads its own rows elsewhere: that keeps its warps together.
    const auto stages = [this](int rank) {
      return domain_.peers[rank].source == CombineSource::kStaged;
    };
    const std::uint32_t seen = look_at_progress(domain_, stages, SignalChannel::kStaged);
    if (chunk < seen || patience == Patience::kLookOnce) return seen;
    return await_progress(domain_, stages, SignalChannel::kStaged, chunk + 1) ? chunk + 1 : 0;
  }

  const Domain& domain_;
  const PullCrew& crew_;
  std::uint32_t num_known_;
};

}  // namespace moelink::kernels
