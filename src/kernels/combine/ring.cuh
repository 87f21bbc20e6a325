// How far the ranks of a combine have come with staged chunks.
#pragma once

#include <cstdint>

#include "device/domain.hpp"
#include "device/memory_order.cuh"
#include "device/wait.cuh"
#include "kernels/combine/params.hpp"
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

// One warp, when it has read its rows of `chunk`; the last one tells all ranks. Relaxed: the rows
// are in this SM, and nothing was written that others should see. A fence of each warp, which waits
// for everything under way on its SM, would cost microseconds.
__device__ inline void pass_consumed(const Domain& domain, const CombinePlan& plan,
                                     std::uint32_t chunk, PullBoard& board) {
  constexpr std::uint32_t kSlots = StagingRing::kNumSlots;
  __syncwarp();
  int last = 0;
  if (threadIdx.x % warpSize == 0) {
    last = is_last_to_pass<cuda::thread_scope_block>(board.passed[chunk % kSlots],
                                                     CombineRoles::kNumWarps - plan.num_stage_warps,
                                                     cuda::memory_order_relaxed) &&
           is_last_to_pass<cuda::thread_scope_device>(domain.local->num_consumed[chunk % kSlots],
                                                      plan.num_blocks, cuda::memory_order_relaxed);
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

// Which chunk the tokens of a warp belong to; they come in ascending order. Without chunks all
// belong to one that nobody has to wait for.
class ChunkCursor {
 public:
  __device__ explicit ChunkCursor(const CombineParams& params) : end_(first_token(params, 1)) {}

  __device__ std::uint32_t chunk() const { return chunk_; }
  __device__ int begin() const { return begin_; }  // first token
  __device__ bool is_before(int token) const { return token >= end_; }
  __device__ bool is_behind_all(const CombineParams& params) const {
    return chunk_ >= num_chunks(params);
  }
  __device__ void advance(const CombineParams& params) {
    begin_ = end_;
    ++chunk_;
    if (chunk_ < num_chunks(params)) end_ = first_token(params, chunk_ + 1);
  }

 private:
  // Looked up again each time: a register would be taken all the time.
  static __device__ std::uint32_t num_chunks(const CombineParams& params) {
    return max(params.domain.local->ring.num_chunks, 1U);
  }
  static __device__ int first_token(const CombineParams& params, std::uint32_t chunk) {
    return static_cast<int>(chunk_begin(params.num_tokens, chunk, num_chunks(params)));
  }

  std::uint32_t chunk_ = 0;
  int begin_ = 0;
  int end_;
};

// One warp: how many chunks all ranks that stage have staged (acquire); 0 if `chunk` does not come.
__device__ inline std::uint32_t count_staged(const Domain& domain, std::uint32_t chunk,
                                             Patience patience) {
  // This rank too, even if it reads its own rows elsewhere: that keeps its warps together.
  const auto stages = [&](int rank) { return domain.peers[rank].source == CombineSource::kStaged; };
  const std::uint32_t seen = look_at_progress(domain, stages, SignalChannel::kStaged);
  if (chunk < seen || patience == Patience::kLookOnce) return seen;
  return await_progress(domain, stages, SignalChannel::kStaged, chunk + 1) ? chunk + 1 : 0;
}

// What one pulling warp knows of the chunks that the ranks have staged for it.
class StagedChunks {
 public:
  __device__ StagedChunks(const Domain& domain, const CombinePlan& plan, PullBoard& board)
      : domain_(domain), plan_(plan), board_(board), num_known_(ring().num_chunks == 0 ? ~0U : 0) {}

  // Whether all ranks that stage have staged `chunk` (acquire, for bulk copies too).
  __device__ bool has(std::uint32_t chunk, Patience patience) {
    if (chunk < num_known_) return true;
    // A look at the ranks takes its time: the first warp to look does so for its block.
    const cuda::atomic_ref<std::uint32_t, cuda::thread_scope_block> known(board_.num_staged);
    num_known_ = known.load(cuda::memory_order_acquire);
    if (chunk >= num_known_) {
      num_known_ = count_staged(domain_, chunk, patience);
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
    pass_consumed(domain_, plan_, chunk, board_);
    return true;
  }
  __device__ const StagingRing& ring() const { return domain_.local->ring; }

 private:
  const Domain& domain_;
  const CombinePlan& plan_;
  PullBoard& board_;
  std::uint32_t num_known_;
};

}  // namespace moelink::kernels
