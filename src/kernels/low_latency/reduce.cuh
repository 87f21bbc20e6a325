// Role reduce: warps add up what the ranks return for a token, as it arrives.
#pragma once

#include <cstdint>

#include "kernels/low_latency/control.cuh"
#include "kernels/low_latency/return.cuh"
#include "kernels/low_latency/route.cuh"

namespace moelink::kernels {

// Vectors that a lane loads at a time: more would not fit the registers of a full block.
constexpr int kVectorsInFlight = 4;

// Which of a token's selections have a row to add. The lane of a selection knows its place in the
// order of addition; -1: none.
struct Terms {
  int count;
  int place_of_lane;
  int owner_of_lane;
  float weight_of_lane;

  // All lanes: the selection that is added at `place`.
  __device__ int at(int place) const {
    return __ffs(static_cast<int>(__ballot_sync(~0U, place_of_lane == place))) - 1;
  }
};

// One warp. `is_there`: the ranks that take part, [R] in shared memory.
__device__ inline Terms terms_of(const LowLatencyCombineParams& params, int token,
                                 const std::uint8_t* is_there) {
  const LowLatencyLink& link = params.link;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const bool exact = params.numerics == CombineNumerics::kExact;
  const int index = lane < link.topk.num_topk ? token * link.topk.num_topk + lane : -1;
  const float weight = exact && index >= 0 ? link.topk.weights[index] : 1.0F;
  const Choice choice = choice_at(link, index, 0);
  if (choice.is_bad) refuse(link, Refusal::of_id(link, index));
  const bool adds = choice.owner >= 0 && is_there[choice.owner] != 0 && (exact || choice.is_first);
  const unsigned all = __ballot_sync(~0U, adds);
  int place = __popc(all & ((1U << lane) - 1));  // selections in their order
  if (!exact) {                                  // or one per rank, in the order of ranks
    place = 0;
#pragma unroll 1
    for (unsigned left = all; left != 0; left &= left - 1) {
      const int other = __shfl_sync(~0U, choice.owner, __ffs(static_cast<int>(left)) - 1);
      if (other < choice.owner) ++place;
    }
  }
  return {__popc(all), adds ? place : -1, choice.owner, weight};
}

// Sums of a part of a row: kSteps vectors per lane.
template <class Line, int kSteps>
struct PartSums {
  float values[kSteps][2 * kChannelsPerWord] = {};

  __device__ void add_weighted_rows(const device::LineBatch<Line, kSteps>& batch, float weight) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      add_weighted(values[step], Line::first(batch.values[step]), weight);
      add_weighted(values[step] + kChannelsPerWord, Line::second(batch.values[step]), weight);
    }
  }
  __device__ void add_rows(const device::LineBatch<Line, kSteps>& batch) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      add_plain(values[step], Line::first(batch.values[step]));
      add_plain(values[step] + kChannelsPerWord, Line::second(batch.values[step]));
    }
  }
  __device__ void store(std::byte* row, const ReturnWords& words) const {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      auto* const at =
          reinterpret_cast<std::uint64_t*>(row + words.offset + step * StepBytes<Line>::value);
      if (words.has_first(step)) at[0] = pack_word(values[step]);
      if (words.has_second(step)) at[1] = pack_word(values[step] + kChannelsPerWord);
    }
  }
};

// One warp: vectors [first, first + count) of a token's sum, kTerms rows loaded at a time. False if
// a row does not come.
template <class Line, int kTerms, int kSteps>
__device__ bool reduce_part(const LowLatencyCombineParams& params, Epoch epoch, int token,
                            const Terms& terms, int first, int count) {
  const LowLatencyLink& link = params.link;
  const bool exact = params.numerics == CombineNumerics::kExact;
  const std::byte* const slots = link.area_of(link.domain.rank) +
                                 link.lines.return_offset(epoch, token * link.area.num_topk) +
                                 static_cast<unsigned>(first) * sizeof(uint4);
  PartSums<Line, kSteps> sums;
#pragma unroll 1
  for (int done = 0; done < terms.count; done += kTerms) {
    device::LineBatch<Line, kSteps> batches[kTerms];
    int k[kTerms] = {};
    const auto slot = [&](int j) {
      return reinterpret_cast<const uint4*>(slots + std::uint64_t{link.lines.return_stride} *
                                                        static_cast<unsigned>(k[j]));
    };
#pragma unroll
    for (int j = 0; j < kTerms; ++j) {
      k[j] = terms.at(done + j);
      if (k[j] >= 0) batches[j].load(slot(j), count);
    }
#pragma unroll
    for (int j = 0; j < kTerms; ++j) {
      if (k[j] < 0) break;
      const Rank rank(__shfl_sync(~0U, terms.owner_of_lane, k[j]));
      const device::LineTarget target =
          line_target(link, Stage::kReduce, rank, epoch, device::OnLoss::kRaise);
      if (device::await_lines(link.domain, target, slot(j), count, batches[j]) !=
          Arrival::kArrived) {
        return false;
      }
      if (exact) {
        sums.add_weighted_rows(batches[j], __shfl_sync(~0U, terms.weight_of_lane, k[j]));
      } else {
        sums.add_rows(batches[j]);
      }
    }
  }
  sums.store(params.out + std::uint64_t{link.lines.return_bytes} * static_cast<unsigned>(token),
             ReturnWords::make<Line, kSteps>(link.lines, first, count));
  return true;
}

// All threads of a block: its share of the tokens' parts.
template <class Line, int kTerms>
__device__ void reduce_tokens(const LowLatencyCombineParams& params, Epoch epoch,
                              const std::uint8_t* is_there) {
  constexpr int kSteps = kVectorsInFlight / kTerms;
  constexpr int kVectors = kSteps * 32;
  const LowLatencyLink& link = params.link;
  const int num_parts = (link.lines.return_vectors + kVectors - 1) / kVectors;
  const int stride = static_cast<int>(gridDim.x) * LowLatencyRoles::kNumWarps;
  int unit = static_cast<int>(threadIdx.x / warpSize * gridDim.x + blockIdx.x);
#pragma unroll 1
  for (; unit < link.num_tokens * num_parts; unit += stride) {
    const int token = unit / num_parts;
    const int first = (unit - token * num_parts) * kVectors;
    const Terms terms = terms_of(params, token, is_there);
    if (!reduce_part<Line, kTerms, kSteps>(params, epoch, token, terms, first,
                                           min(link.lines.return_vectors - first, kVectors))) {
      return;
    }
  }
}

// All threads of a block: leaves out ranks that have returned another number of tokens than this
// rank has sent them: one side has left the other out of the dispatch, and what lies in its slots
// is older. Only where ranks may be lost.
__device__ inline void leave_out_strangers(const LowLatencyCombineParams& params,
                                           const Heard& heard, const ControlBoard& counts) {
  const LowLatencyLink& link = params.link;
  count_tokens_before(link, link.num_tokens, counts);
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    const auto sent = static_cast<std::uint32_t>(*counts.num_tokens(i));
    if (heard.is_there[i] != 0 && heard.board.header(i).num_tokens != sent) heard.is_there[i] = 0;
  }
  __syncthreads();
}

// All threads of a block: finds out which ranks take part. Where none may be lost the rows tell by
// themselves, and block 0 alone looks whether the calls fit. False: the rank has a fault.
template <class Line>
__device__ bool hear_of_return(const LowLatencyCombineParams& params, Epoch epoch,
                               const Heard& heard, const ControlBoard& counts) {
  const LowLatencyLink& link = params.link;
  if (link.survival == Survival::kMask || blockIdx.x == 0) {
    if (!hear_all<Line>(link, Stage::kReduce, epoch, heard)) return false;
    if (!calls_match(link, epoch, heard)) return false;
    if (link.survival == Survival::kMask) leave_out_strangers(params, heard, counts);
    return true;
  }
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    heard.is_there[i] = is_masked(link, i) ? 0 : 1;
  }
  __syncthreads();
  return true;
}

template <class Line>
__device__ void reduce_half(const LowLatencyCombineParams& params, Epoch epoch, const Heard& heard,
                            const ControlBoard& counts) {
  const LowLatencyLink& link = params.link;
  if (!hear_of_return<Line>(params, epoch, heard, counts)) return;
  const bool exact = params.numerics == CombineNumerics::kExact;
  const int most = exact ? link.topk.num_topk : min(link.topk.num_topk, link.num_ranks());
  if (most <= 2) {
    reduce_tokens<Line, 2>(params, epoch, heard.is_there);
  } else {
    reduce_tokens<Line, kVectorsInFlight>(params, epoch, heard.is_there);
  }
}

}  // namespace moelink::kernels
