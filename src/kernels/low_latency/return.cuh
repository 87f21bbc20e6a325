// Role send_back: warps return the experts' rows to the ranks of their tokens.
#pragma once

#include <cstdint>

#include "device/codec.cuh"
#include "kernels/low_latency/control.cuh"
#include "kernels/low_latency/flow.cuh"

namespace moelink::kernels {

// Channels of a vector of a returned row: the words that it carries.
constexpr int kChannelsPerWord = 4;

// Four bfloat16, times a weight, onto sums: rounded after each step, as the CPU does.
__device__ inline void add_weighted(float* sums, std::uint64_t word, float weight) {
  const auto low = static_cast<std::uint32_t>(word);
  const auto high = static_cast<std::uint32_t>(word >> 32);
  sums[0] = __fadd_rn(sums[0], __fmul_rn(weight, __uint_as_float(low << 16)));
  sums[1] = __fadd_rn(sums[1], __fmul_rn(weight, __uint_as_float(low & 0xffff0000U)));
  sums[2] = __fadd_rn(sums[2], __fmul_rn(weight, __uint_as_float(high << 16)));
  sums[3] = __fadd_rn(sums[3], __fmul_rn(weight, __uint_as_float(high & 0xffff0000U)));
}
__device__ inline void add_plain(float* sums, std::uint64_t word) {
  const auto low = static_cast<std::uint32_t>(word);
  const auto high = static_cast<std::uint32_t>(word >> 32);
  device::BFloat16Pair::add(sums, low);
  device::BFloat16Pair::add(sums + 2, high);
}
__device__ inline std::uint64_t pack_word(const float* sums) {
  return device::word_of(device::BFloat16Pair::pack(sums), device::BFloat16Pair::pack(sums + 2));
}

// A received row whose experts are done: the lane's selection has its row of x, or -1.
struct FinishedRow {
  int source;
  int token;
  std::int32_t row_of_lane;
  float weight_of_lane;
};

__device__ inline FinishedRow finished_row(const LowLatencyCombineParams& params, int source,
                                           int i) {
  const LineArea& area = params.link.area;
  const int at = source * area.max_tokens + i;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  FinishedRow row{source, params.memory.source_token[at], -1, 0.0F};
  if (lane >= area.num_topk) return row;
  row.row_of_lane = params.memory.rows[at * area.num_topk + lane];
  if (params.sums_here) row.weight_of_lane = params.memory.weights[at * area.num_topk + lane];
  return row;
}

// Which words of a part of a returned row a lane has: bit s for that of step s. The others are sent
// as zeros.
struct ReturnWords {
  std::uint32_t offset;  // of the first word of step 0
  unsigned firsts = 0;
  unsigned seconds = 0;

  template <class Line, int kSteps>
  static __device__ ReturnWords make(const LinePlan& lines, int first, int count) {
    const int lane = static_cast<int>(threadIdx.x % warpSize);
    const LineWords words = words_of_vector(Line::kFormat, first + lane);
    ReturnWords made{words.first};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step * warpSize + lane >= count) break;
      const std::uint32_t at = made.offset + step * StepBytes<Line>::value;
      if (at < lines.return_bytes) made.firsts |= 1U << step;
      if (words.has_second && at + 8 < lines.return_bytes) made.seconds |= 1U << step;
    }
    return made;
  }
  __device__ bool has_first(int step) const { return (firsts >> step & 1U) != 0; }
  __device__ bool has_second(int step) const { return (seconds >> step & 1U) != 0; }
};

// The lane's words of one part of a row of x.
template <class Line>
struct RowWords {
  std::uint64_t first[kRowSteps];
  std::uint64_t second[kRowSteps];

  __device__ void load(const LowLatencyCombineParams& params, const ReturnWords& words, int row) {
    const std::byte* const from =
        params.x + std::uint64_t{params.link.lines.return_bytes} * static_cast<unsigned>(row) +
        words.offset;
#pragma unroll
    for (int step = 0; step < kRowSteps; ++step) {
      const auto* const at =
          reinterpret_cast<const std::uint64_t*>(from + step * StepBytes<Line>::value);
      first[step] = words.has_first(step) ? at[0] : 0;
      second[step] = words.has_second(step) ? at[1] : 0;
    }
  }
};

__device__ inline uint4* return_slot(const LowLatencyLink& link, Epoch epoch,
                                     const FinishedRow& row, int k) {
  return reinterpret_cast<uint4*>(
      link.area_of(Rank(row.source)) +
      link.lines.return_offset(epoch, row.token * link.area.num_topk + k));
}

// One warp: vectors [first, first + count) of each row that the token has here.
template <class Line>
__device__ void return_each(const LowLatencyCombineParams& params, Epoch epoch,
                            const FinishedRow& row, int first, int count) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const ReturnWords words = ReturnWords::make<Line, kRowSteps>(params.link.lines, first, count);
#pragma unroll 1
  for (unsigned left = __ballot_sync(~0U, row.row_of_lane >= 0); left != 0; left &= left - 1) {
    const int k = __ffs(static_cast<int>(left)) - 1;
    RowWords<Line> held;
    held.load(params, words, __shfl_sync(~0U, row.row_of_lane, k));
    uint4* const to = return_slot(params.link, epoch, row, k) + first;
#pragma unroll
    for (int step = 0; step < kRowSteps; ++step) {
      const int v = step * warpSize + lane;
      if (v < count) {
        device::store_vector(to + v,
                             Line::seal(held.first[step], held.second[step], first + v, epoch));
      }
    }
  }
}

// One warp: vectors [first, first + count) of the weighted sum of the token's rows, to the slot of
// the first of its selections.
template <class Line>
__device__ void return_sum(const LowLatencyCombineParams& params, Epoch epoch,
                           const FinishedRow& row, int first, int count) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const unsigned terms = __ballot_sync(~0U, row.row_of_lane >= 0);
  if (terms == 0) return;
  const ReturnWords words = ReturnWords::make<Line, kRowSteps>(params.link.lines, first, count);
  float sums[kRowSteps][2 * kChannelsPerWord] = {};
#pragma unroll 4
  for (unsigned left = terms; left != 0; left &= left - 1) {
    const int k = __ffs(static_cast<int>(left)) - 1;
    const float weight = __shfl_sync(~0U, row.weight_of_lane, k);
    RowWords<Line> held;
    held.load(params, words, __shfl_sync(~0U, row.row_of_lane, k));
#pragma unroll
    for (int step = 0; step < kRowSteps; ++step) {
      add_weighted(sums[step], held.first[step], weight);
      add_weighted(sums[step] + kChannelsPerWord, held.second[step], weight);
    }
  }
  uint4* const to =
      return_slot(params.link, epoch, row, __ffs(static_cast<int>(terms)) - 1) + first;
#pragma unroll
  for (int step = 0; step < kRowSteps; ++step) {
    const int v = step * warpSize + lane;
    if (v < count) {
      device::store_vector(
          to + v, Line::seal(pack_word(sums[step]), pack_word(sums[step] + kChannelsPerWord),
                             first + v, epoch));
    }
  }
}

// All threads of a block: its share of the rows that have been received, source by source.
template <class Line>
__device__ void return_rows(const LowLatencyCombineParams& params, Epoch epoch) {
  const LowLatencyLink& link = params.link;
  const int num_parts = link.lines.return_parts;
  const int stride = static_cast<int>(gridDim.x) * LowLatencyRoles::kNumWarps;
  int unit = static_cast<int>(threadIdx.x / warpSize * gridDim.x + blockIdx.x);
  int before = 0;  // units of the sources before
#pragma unroll 1
  for (int source = 0; source < link.num_ranks(); ++source) {
    const int end = before + params.memory.num_received[source] * num_parts;
    const bool skips = __any_sync(~0U, is_masked(link, source)) != 0;
#pragma unroll 1
    for (; unit < end; unit += stride) {
      if (skips) continue;
      const int i = (unit - before) / num_parts;
      const int first = (unit - before - i * num_parts) * kPartVectors;
      const int count = min(link.lines.return_vectors - first, kPartVectors);
      const FinishedRow row = finished_row(params, source, i);
      if (params.sums_here) {
        return_sum<Line>(params, epoch, row, first, count);
      } else {
        return_each<Line>(params, epoch, row, first, count);
      }
    }
    before = end;
  }
}

// All threads of the last block: tells every rank that this one takes part, and how many of its
// tokens it returns.
template <class Line>
__device__ void announce_return(const LowLatencyCombineParams& params, Epoch epoch,
                                const ControlBoard& board) {
  const LowLatencyLink& link = params.link;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks();
       i += LowLatencyRoles::kNumThreads) {
    *board.num_tokens(i) = params.memory.num_received[i];
  }
  head_controls(link, epoch, false, board);
  __syncthreads();
  if (await_rows_sent(link)) send_controls<Line>(link, epoch, board);
  __syncthreads();  // the board may serve for what is heard now
}

template <class Line>
__device__ void return_half(const LowLatencyCombineParams& params, Epoch epoch,
                            const ControlBoard& board) {
  if (!may_send(params.link, epoch)) return;
  return_rows<Line>(params, epoch);
  note_rows_sent(params.link);
  if (blockIdx.x + 1 == gridDim.x) announce_return<Line>(params, epoch, board);
}

}  // namespace moelink::kernels
