// Role reduce: warps add up what the ranks return for a token, as it arrives.
#pragma once

#include <cstdint>

#include "kernels/low_latency/control.cuh"
#include "kernels/low_latency/return.cuh"
#include "kernels/low_latency/route.cuh"

namespace moelink::kernels {

// Vectors that a lane loads at a time: more would not fit the registers of a full block.
constexpr int kVectorsInFlight = 4;

// Which of a token's selections have a row to add, in the order of addition: lane j has the j-th.
struct Terms {
  int count;
  int k_of_lane;
  int rank_of_lane;
  float weight_of_lane;
};

// One warp. `is_there`: the ranks that take part, [R] in shared memory.
__device__ inline Terms terms_of(const LowLatencyCombineParams& params, int token,
                                 const std::uint8_t* is_there) {
  const LowLatencyLink& link = params.link;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const bool exact = params.numerics == CombineNumerics::kExact;
  const int index = lane < link.topk.num_topk ? token * link.topk.num_topk + lane : -1;
  const Choice choice = choice_at(link, index, 0);
  const bool adds = choice.owner >= 0 && is_there[choice.owner] != 0 && (exact || choice.is_first);
  const unsigned all = __ballot_sync(~0U, adds);
  // Selections in their order, or one per rank in the order of ranks.
  int place = __popc(all & ((1U << lane) - 1));
  if (!exact) {
    place = 0;
    for (unsigned left = all; left != 0; left &= left - 1) {
      const int other = __shfl_sync(~0U, choice.owner, __ffs(static_cast<int>(left)) - 1);
      if (other < choice.owner) ++place;
    }
  }
  const float weight = exact && index >= 0 ? link.topk.weights[index] : 1.0F;
  Terms terms{__popc(all), 0, 0, 0.0F};
  for (unsigned left = all; left != 0; left &= left - 1) {
    const int from = __ffs(static_cast<int>(left)) - 1;
    const int to = __shfl_sync(~0U, place, from);
    const int rank = __shfl_sync(~0U, choice.owner, from);
    const float factor = __shfl_sync(~0U, weight, from);
    if (lane != to) continue;
    terms.k_of_lane = from;
    terms.rank_of_lane = rank;
    terms.weight_of_lane = factor;
  }
  return terms;
}

// Sums of a part of a row: kSteps vectors per lane.
template <int kSteps>
struct PartSums {
  float values[kSteps][2 * kChannelsPerWord] = {};

  template <class Line>
  __device__ void add(const device::LineBatch<Line, kSteps>& batch, float weight, bool exact) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const std::uint64_t first = Line::first(batch.values[step]);
      const std::uint64_t second = Line::second(batch.values[step]);
      if (exact) {
        add_weighted(values[step], first, weight);
        add_weighted(values[step] + kChannelsPerWord, second, weight);
      } else {
        add_plain(values[step], first);
        add_plain(values[step] + kChannelsPerWord, second);
      }
    }
  }
  template <class Line>
  __device__ void store(std::byte* row, std::size_t row_bytes, int first, int count) const {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int v = step * warpSize + static_cast<int>(threadIdx.x % warpSize);
      if (v >= count) break;
      const LineWords words = words_of_vector(Line::kFormat, first + v);
      const auto put = [&](std::size_t offset, const float* sums) {
        if (offset < row_bytes) *reinterpret_cast<std::uint64_t*>(row + offset) = pack_word(sums);
      };
      put(words.first, values[step]);
      if (words.has_second) put(words.first + kLineWordBytes, values[step] + kChannelsPerWord);
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
  const std::size_t row_bytes = link.area.hidden * 2;
  const std::byte* const area = link.area_of(link.domain.rank);
  PartSums<kSteps> sums;
  for (int done = 0; done < terms.count; done += kTerms) {
    device::LineBatch<Line, kSteps> batches[kTerms];
    const auto slot = [&](int term) {
      const int k = __shfl_sync(~0U, terms.k_of_lane, term);
      return reinterpret_cast<const uint4*>(area +
                                            link.area.return_offset(epoch, TokenIdx(token), k)) +
             first;
    };
#pragma unroll
    for (int j = 0; j < kTerms; ++j) {
      if (done + j < terms.count) batches[j].load(slot(done + j), count);
    }
#pragma unroll
    for (int j = 0; j < kTerms; ++j) {
      if (done + j >= terms.count) break;
      const Rank rank(__shfl_sync(~0U, terms.rank_of_lane, done + j));
      const device::LineTarget target =
          line_target(link, Stage::kReduce, rank, epoch, device::OnLoss::kRaise);
      if (device::await_lines(link.domain, target, slot(done + j), count, batches[j]) !=
          Arrival::kArrived) {
        return false;
      }
      sums.add(batches[j], __shfl_sync(~0U, terms.weight_of_lane, done + j), exact);
    }
  }
  sums.template store<Line>(params.out + static_cast<std::size_t>(token) * row_bytes, row_bytes,
                            first, count);
  return true;
}

// All threads of a block: its share of the tokens' parts.
template <class Line, int kTerms>
__device__ void reduce_tokens(const LowLatencyCombineParams& params, Epoch epoch,
                              const std::uint8_t* is_there) {
  constexpr int kSteps = kVectorsInFlight / kTerms;
  constexpr int kVectors = kSteps * 32;
  const LowLatencyLink& link = params.link;
  const int total = return_vectors<Line>(link);
  const int num_parts = (total + kVectors - 1) / kVectors;
  const int stride = static_cast<int>(gridDim.x) * LowLatencyRoles::kNumWarps;
  int unit = static_cast<int>(threadIdx.x / warpSize * gridDim.x + blockIdx.x);
  for (; unit < link.num_tokens * num_parts; unit += stride) {
    const int token = unit / num_parts;
    const int first = (unit - token * num_parts) * kVectors;
    const Terms terms = terms_of(params, token, is_there);
    if (!reduce_part<Line, kTerms, kSteps>(params, epoch, token, terms, first,
                                           min(total - first, kVectors))) {
      return;
    }
  }
}

// All threads of a block: leaves out ranks that have returned another number of tokens than this
// rank has sent them: one side has left the other out of the dispatch, and what lies in its slots
// is older. Only where ranks may be lost.
__device__ inline void leave_out_strangers(const LowLatencyCombineParams& params,
                                           const Heard& heard, const SentCounts& counts) {
  const LowLatencyLink& link = params.link;
  count_tokens_before(link, link.num_tokens, counts);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    const auto sent = static_cast<std::uint32_t>(counts.of_rank[i]);
    if (heard.is_there[i] != 0 && heard.headers[i].num_tokens != sent) heard.is_there[i] = 0;
  }
  __syncthreads();
}

template <class Line>
__device__ void reduce_half(const LowLatencyCombineParams& params, Epoch epoch, const Heard& heard,
                            const SentCounts& counts) {
  const LowLatencyLink& link = params.link;
  if (!hear_all<Line>(link, Stage::kReduce, epoch, heard)) return;
  if (!calls_match(link, epoch, heard)) return;
  if (link.survival == Survival::kMask) leave_out_strangers(params, heard, counts);
  const bool exact = params.numerics == CombineNumerics::kExact;
  const int most = exact ? link.topk.num_topk : min(link.topk.num_topk, link.num_ranks());
  if (most <= 2) {
    reduce_tokens<Line, 2>(params, epoch, heard.is_there);
  } else {
    reduce_tokens<Line, kVectorsInFlight>(params, epoch, heard.is_there);
  }
}

}  // namespace moelink::kernels
