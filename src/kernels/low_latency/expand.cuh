// Role receive: warps put the parts of arriving rows where the experts want them.
#pragma once

#include <cstdint>

#include "kernels/low_latency/control.cuh"
#include "kernels/low_latency/flow.cuh"

namespace moelink::kernels {

constexpr int kMaxHeaderWords32 = 2 + 2 * kMaxTopk;

// What a block knows of all that it receives. Shared memory.
struct Incoming {
  Heard heard;              // its counts become first rows, see lay_out()
  std::int32_t* first_row;  // [R + 1]: rows of the sources before
  // [warps, kMaxHeaderWords32]: the header of the row that a warp has
  std::uint32_t* row_headers;
};

// One thread per local expert: turns the counts of the sources into the first row of each among
// those of the expert. Block 0 also hands out what these say.
__device__ inline void lay_out_expert(const LowLatencyDispatchParams& params,
                                      const Incoming& incoming, int local) {
  const LowLatencyLink& link = params.link;
  const int num_ranks = link.num_ranks();
  std::int32_t begin = 0;
#pragma unroll 1
  for (int source = 0; source < num_ranks; ++source) {
    std::int32_t& cell = incoming.heard.board.count(source, local);
    const std::int32_t count = incoming.heard.is_there[source] != 0 ? cell : 0;
    cell = begin;
    if (blockIdx.x == 0) {
      params.layout_range[local * num_ranks + source] = RowRange{begin, count}.pack();
    }
    begin += count;
  }
  if (blockIdx.x != 0) return;
  params.recv_count[local] = begin;
  if (params.recv_stats != nullptr) params.recv_stats[local] += begin;
}

// All threads of a block.
__device__ inline void lay_out(const LowLatencyDispatchParams& params, const Incoming& incoming) {
  const LowLatencyLink& link = params.link;
  if (params.layout == LowLatencyLayout::kPerExpert) {
#pragma unroll 1
    for (int local = static_cast<int>(threadIdx.x); local < link.num_local;
         local += static_cast<int>(blockDim.x)) {
      lay_out_expert(params, incoming, local);
    }
  }
  if (threadIdx.x == 0) {
    std::int32_t sum = 0;
#pragma unroll 1
    for (int source = 0; source < link.num_ranks(); ++source) {
      incoming.first_row[source] = sum;
      if (incoming.heard.is_there[source] != 0) {
        sum += *incoming.heard.board.num_tokens(source);
      }
    }
    incoming.first_row[link.num_ranks()] = sum;
  }
  __syncthreads();
}

// All threads of block 0: rows per source, for the handle and, in the per-rank layout, the caller.
__device__ inline void hand_out_sources(const LowLatencyDispatchParams& params,
                                        const Incoming& incoming) {
  const int num_ranks = params.link.num_ranks();
  const bool per_rank = params.layout == LowLatencyLayout::kPerRank;
#pragma unroll 1
  for (int source = static_cast<int>(threadIdx.x); source < num_ranks;
       source += static_cast<int>(blockDim.x)) {
    const std::int32_t count = incoming.first_row[source + 1] - incoming.first_row[source];
    params.memory.num_received[source] = count;
    if (per_rank) params.recv_count[source] = count;
  }
  if (!per_rank) return;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_ranks * num_ranks;
       i += static_cast<int>(blockDim.x)) {
    params.layout_range[i] = 0;
  }
}

// A row on its arrival: the i-th of `source`. The lane with a selection's number knows where the
// row goes: row `index` of output group `group`; group -1: nowhere.
struct ArrivingRow {
  int source;
  int i;
  int token;
  int group_of_lane;
  int index_of_lane;
  int local_of_lane;
  float weight_of_lane;
};

// One warp, once the header of the row is in `words`.
__device__ inline void resolve_row(const LowLatencyDispatchParams& params, const Incoming& incoming,
                                   const std::uint32_t* words, ArrivingRow& row) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.link.area.num_topk;
  row.token = static_cast<int>(words[0]);
  row.group_of_lane = -1;
  row.index_of_lane = 0;
  row.weight_of_lane = 0.0F;
  WireSelection selection;
  if (lane < num_topk) {
    selection = WireSelection::unpack(words[2 + lane]);
    row.weight_of_lane = __uint_as_float(words[2 + num_topk + lane]);
  }
  row.local_of_lane = selection.local;
  const unsigned chosen = __ballot_sync(~0U, selection.local >= 0);
  if (params.layout == LowLatencyLayout::kPerRank) {
    if (lane != __ffs(static_cast<int>(chosen)) - 1) return;
    row.group_of_lane = row.source;
    row.index_of_lane = row.i;
    return;
  }
  if (selection.local < 0) return;
  row.group_of_lane = selection.local;
  row.index_of_lane = incoming.heard.board.count(row.source, selection.local) + selection.index;
}

__device__ inline int output_row_of_lane(const LowLatencyDispatchParams& params,
                                         const ArrivingRow& row) {
  return row.group_of_lane < 0 ? -1 : row.group_of_lane * params.rows_per_group + row.index_of_lane;
}

// One warp: what goes with the row, written once.
__device__ inline void describe_row(const LowLatencyDispatchParams& params,
                                    const ArrivingRow& row) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const LineArea& area = params.link.area;
  const int at = row.source * area.max_tokens + row.i;
  const int out = output_row_of_lane(params, row);
  if (lane == 0) params.memory.source_token[at] = row.token;
  if (out >= 0) {
    params.src_info[out] = row.token;
    params.src_topk[out] = lane;
    if (params.src_weight != nullptr) params.src_weight[out] = row.weight_of_lane;
  }
  if (lane >= area.num_topk) return;
  const int selection = at * area.num_topk + lane;
  params.memory.rows[selection] = out;
  if (params.memory.weights != nullptr) params.memory.weights[selection] = row.weight_of_lane;
  if (params.recv_topk_idx != nullptr) params.recv_topk_idx[selection] = row.local_of_lane;
  if (params.recv_topk_weights != nullptr) {
    params.recv_topk_weights[selection] = row.weight_of_lane;
  }
}

// Two scales at `offset` in the scales of a row, to every output row of the token. One warp; lanes
// whose word is no scale have an offset beyond them.
__device__ inline void store_scales(const LowLatencyDispatchParams& params, const ArrivingRow& row,
                                    std::uint32_t offset, std::uint64_t word) {
  const int column = static_cast<int>(offset / sizeof(std::int32_t));
#pragma unroll 1
  for (unsigned left = __ballot_sync(~0U, row.group_of_lane >= 0); left != 0; left &= left - 1) {
    const int from = __ffs(static_cast<int>(left)) - 1;
    const int group = __shfl_sync(~0U, row.group_of_lane, from);
    const int index = __shfl_sync(~0U, row.index_of_lane, from);
    std::int32_t* const at =
        params.recv_scales +
        (std::int64_t{group} * params.num_scales + column) * params.rows_per_group + index;
    if (column < params.num_scales) at[0] = static_cast<std::int32_t>(word);
    if (column + 1 < params.num_scales) {
      at[params.rows_per_group] = static_cast<std::int32_t>(word >> 32);
    }
  }
}

// One warp: the scales in a part of a row, vectors [first, first + count).
template <class Line>
__device__ void store_mixed(const LowLatencyDispatchParams& params, const ArrivingRow& row,
                            int first, int count, const device::LineBatch<Line, kRowSteps>& part) {
  constexpr std::uint32_t kBeyond = ~0U / 2;
  const LinePlan& lines = params.link.lines;
#pragma unroll
  for (int step = 0; step < kRowSteps; ++step) {
    if (first + step * warpSize >= lines.mixed_vectors) return;
    const int v = step * warpSize + static_cast<int>(threadIdx.x % warpSize);
    const LineWords words = words_of_vector(Line::kFormat, first + v);
    const auto offset = [&](std::uint32_t at, bool exists) {
      const bool is_scale =
          exists && v < count && at >= lines.header_bytes && at < lines.body_start;
      return is_scale ? at - lines.header_bytes : kBeyond;
    };
    store_scales(params, row, offset(words.first, true), Line::first(part.values[step]));
    store_scales(params, row,
                 offset(words.first + static_cast<std::uint32_t>(kLineWordBytes), words.has_second),
                 Line::second(part.values[step]));
  }
}

// Which words of a part a lane writes: bit s for that of step s.
struct PayloadWords {
  std::int32_t offset;  // of the first word of step 0 in the payload; may lie before it
  unsigned firsts = 0;
  unsigned seconds = 0;

  template <class Line>
  static __device__ PayloadWords make(const LinePlan& lines, int first, int count) {
    const int lane = static_cast<int>(threadIdx.x % warpSize);
    const LineWords words = words_of_vector(Line::kFormat, first + lane);
    PayloadWords made{static_cast<std::int32_t>(words.first - lines.body_start)};
#pragma unroll
    for (int step = 0; step < kRowSteps; ++step) {
      const std::int32_t at =
          made.offset + step * static_cast<std::int32_t>(StepBytes<Line>::value);
      const auto is_payload = [&](std::int32_t offset) {
        return offset >= 0 && offset < static_cast<std::int32_t>(lines.payload_bytes);
      };
      if (step * warpSize + lane >= count) break;
      if (is_payload(at)) made.firsts |= 1U << step;
      if (words.has_second && is_payload(at + 8)) made.seconds |= 1U << step;
    }
    return made;
  }
};

// One warp: a part of a row that has arrived, to every output row that the token has.
template <class Line>
__device__ void store_part(const LowLatencyDispatchParams& params, const ArrivingRow& row,
                           const PayloadWords& words,
                           const device::LineBatch<Line, kRowSteps>& part) {
  const int out_of_lane = output_row_of_lane(params, row);
#pragma unroll 1
  for (unsigned left = __ballot_sync(~0U, out_of_lane >= 0); left != 0; left &= left - 1) {
    const int out = __shfl_sync(~0U, out_of_lane, __ffs(static_cast<int>(left)) - 1);
    std::byte* const to =
        params.recv_x +
        std::uint64_t{params.link.lines.payload_bytes} * static_cast<unsigned>(out) + words.offset;
#pragma unroll
    for (int step = 0; step < kRowSteps; ++step) {
      auto* const at = reinterpret_cast<std::uint64_t*>(to + step * StepBytes<Line>::value);
      if ((words.firsts >> step & 1U) != 0) at[0] = Line::first(part.values[step]);
      if ((words.seconds >> step & 1U) != 0) at[1] = Line::second(part.values[step]);
    }
  }
}

// One warp: waits for the header of a row and leaves it in `words`.
template <class Line>
__device__ Arrival await_header(const LowLatencyLink& link, const device::LineTarget& target,
                                const uint4* message, std::uint32_t* words) {
  const std::size_t bytes = RowHeader::bytes(link.area.num_topk);
  const int count = static_cast<int>(num_lines(Line::kFormat, bytes)) * kVectorsPerLine;
  __syncwarp();  // all lanes are done with the header before
#pragma unroll 1
  for (int first = 0; first < count; first += warpSize) {
    const int left = min(count - first, static_cast<int>(warpSize));
    device::LineBatch<Line, 1> batch;
    batch.load(message + first, left);
    const Arrival arrival = device::await_lines(link.domain, target, message + first, left, batch);
    if (arrival != Arrival::kArrived) return arrival;
    const int v = static_cast<int>(threadIdx.x % warpSize);
    if (v >= left) continue;
    const LineWords place = words_of_vector(Line::kFormat, first + v);
    auto* const to = reinterpret_cast<std::uint64_t*>(words);
    if (place.first < bytes) to[place.first / kLineWordBytes] = Line::first(batch.values[0]);
    if (place.has_second && place.first + kLineWordBytes < bytes) {
      to[place.first / kLineWordBytes + 1] = Line::second(batch.values[0]);
    }
  }
  __syncwarp();
  return Arrival::kArrived;
}

// One warp: part `part` of a row. False if it does not come.
template <class Line>
__device__ bool receive_part(const LowLatencyDispatchParams& params, Epoch epoch,
                             const Incoming& incoming, ArrivingRow& row, int part) {
  const LowLatencyLink& link = params.link;
  const int first = part * kPartVectors;
  const int count = min(link.lines.row_vectors - first, kPartVectors);
  const auto* const message = reinterpret_cast<const uint4*>(
      link.area_of(link.domain.rank) +
      link.lines.row_offset(epoch, row.source * link.area.max_tokens + row.i));
  const device::LineTarget target =
      line_target(link, Stage::kReceive, Rank(row.source), epoch, device::OnLoss::kRaise);
  device::LineBatch<Line, kRowSteps> batch;
  batch.load(message + first, count);
  std::uint32_t* const words =
      incoming.row_headers + static_cast<int>(threadIdx.x / warpSize) * kMaxHeaderWords32;
  if (await_header<Line>(link, target, message, words) != Arrival::kArrived) return false;
  resolve_row(params, incoming, words, row);
  if (part == 0) describe_row(params, row);
  const PayloadWords payload = PayloadWords::make<Line>(link.lines, first, count);
  if (device::await_lines(link.domain, target, message + first, count, batch) !=
      Arrival::kArrived) {
    return false;
  }
  store_part<Line>(params, row, payload, batch);
  if (params.recv_scales != nullptr) store_mixed<Line>(params, row, first, count, batch);
  return true;
}

// All threads of a block: its share of all rows that arrive.
template <class Line>
__device__ void receive_rows(const LowLatencyDispatchParams& params, Epoch epoch,
                             const Incoming& incoming) {
  const LowLatencyLink& link = params.link;
  const int num_parts = link.lines.row_parts;
  const int num_units = incoming.first_row[link.num_ranks()] * num_parts;
  const int stride = static_cast<int>(gridDim.x) * LowLatencyRoles::kNumWarps;
  // Neighbouring units go to different blocks: their memory is read by several SMs at once.
  int unit = static_cast<int>(threadIdx.x / warpSize * gridDim.x + blockIdx.x);
  ArrivingRow row{};
#pragma unroll 1
  for (; unit < num_units; unit += stride) {
    const int number = unit / num_parts;
#pragma unroll 1
    while (number >= incoming.first_row[row.source + 1]) ++row.source;
    row.i = number - incoming.first_row[row.source];
    if (!receive_part<Line>(params, epoch, incoming, row, unit - number * num_parts)) return;
  }
}

// All threads of a block: in the per-rank layout, the lists of rows that no token fills.
__device__ inline void clear_unused(const LowLatencyDispatchParams& params,
                                    const Incoming& incoming) {
  if (params.recv_topk_idx == nullptr) return;
  const LineArea& area = params.link.area;
  const int per_source = area.max_tokens * area.num_topk;
#pragma unroll 1
  for (int source = static_cast<int>(blockIdx.x); source < params.link.num_ranks();
       source += static_cast<int>(gridDim.x)) {
    const int used = incoming.first_row[source + 1] - incoming.first_row[source];
#pragma unroll 1
    for (int i = used * area.num_topk + static_cast<int>(threadIdx.x); i < per_source;
         i += static_cast<int>(blockDim.x)) {
      const std::int64_t at = std::int64_t{source} * per_source + i;
      params.recv_topk_idx[at] = kNoExpert;
      if (params.recv_topk_weights != nullptr) params.recv_topk_weights[at] = 0.0F;
    }
  }
}

// All threads of a block: its share of the receiving.
template <class Line>
__device__ void receive_half(const LowLatencyDispatchParams& params, Epoch epoch,
                             const Incoming& incoming) {
  const LowLatencyLink& link = params.link;
  if (!hear_all<Line>(link, Stage::kReceive, epoch, incoming.heard)) return;
  if (!calls_match(link, epoch, incoming.heard)) return;
  lay_out(params, incoming);
  if (blockIdx.x == 0) hand_out_sources(params, incoming);
  device::pass_stage(link.domain, Stage::kSignal, epoch);
  receive_rows<Line>(params, epoch, incoming);
  clear_unused(params, incoming);
}

}  // namespace moelink::kernels
