// Role receive: warps put the parts of arriving rows where the experts want them.
#pragma once

#include <cstdint>

#include "kernels/low_latency/control.cuh"
#include "kernels/low_latency/flow.cuh"

namespace moelink::kernels {

constexpr int kPartVectors = kRowSteps * 32;
constexpr int kMaxHeaderWords32 = 2 + 2 * kMaxTopk;

// What a block knows of all that it receives. Shared memory.
struct Incoming {
  Heard heard;               // its counts become first rows, see lay_out()
  std::int32_t* first_unit;  // [R + 1]: rows of the sources before
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
  for (int source = 0; source < num_ranks; ++source) {
    std::int32_t& cell = incoming.heard.counts[source * incoming.heard.num_counts + local];
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
    for (int local = static_cast<int>(threadIdx.x); local < link.num_local();
         local += static_cast<int>(blockDim.x)) {
      lay_out_expert(params, incoming, local);
    }
  }
  if (threadIdx.x == 0) {
    std::int32_t sum = 0;
    for (int source = 0; source < link.num_ranks(); ++source) {
      incoming.first_unit[source] = sum;
      if (incoming.heard.is_there[source] != 0) {
        sum += static_cast<std::int32_t>(incoming.heard.headers[source].num_tokens);
      }
    }
    incoming.first_unit[link.num_ranks()] = sum;
  }
  __syncthreads();
}

// All threads of block 0: rows per source, for the handle and, in the per-rank layout, the caller.
__device__ inline void hand_out_sources(const LowLatencyDispatchParams& params,
                                        const Incoming& incoming) {
  const int num_ranks = params.link.num_ranks();
  const bool per_rank = params.layout == LowLatencyLayout::kPerRank;
  for (int source = static_cast<int>(threadIdx.x); source < num_ranks;
       source += static_cast<int>(blockDim.x)) {
    const std::int32_t count = incoming.first_unit[source + 1] - incoming.first_unit[source];
    params.memory.num_received[source] = count;
    if (per_rank) params.recv_count[source] = count;
  }
  if (!per_rank) return;
  for (int i = static_cast<int>(threadIdx.x); i < num_ranks * num_ranks;
       i += static_cast<int>(blockDim.x)) {
    params.layout_range[i] = 0;
  }
}

// Where a selection's row goes among the output rows.
struct OutputRow {
  std::int32_t group = -1;  // -1: nowhere
  std::int32_t index = 0;   // in the group

  __device__ std::int32_t row(std::int32_t rows_per_group) const {
    return group < 0 ? -1 : group * rows_per_group + index;
  }
};

// A row on its arrival: the i-th of `source`.
struct ArrivingRow {
  int source;
  int i;
  int token;
  OutputRow of_lane;  // of the selection with the lane's number
  int local_of_lane;
  float weight_of_lane;
};

// One warp, once the header of the row is in `words`.
__device__ inline void resolve_row(const LowLatencyDispatchParams& params, const Incoming& incoming,
                                   const std::uint32_t* words, ArrivingRow& row) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.link.area.num_topk;
  row.token = static_cast<int>(words[0]);
  row.local_of_lane = -1;
  row.weight_of_lane = 0.0F;
  row.of_lane = {};
  WireSelection selection;
  if (lane < num_topk) {
    selection = WireSelection::unpack(words[2 + lane]);
    row.local_of_lane = selection.local;
    row.weight_of_lane = __uint_as_float(words[2 + num_topk + lane]);
  }
  const unsigned chosen = __ballot_sync(~0U, selection.local >= 0);
  if (params.layout == LowLatencyLayout::kPerRank) {
    if (lane == __ffs(static_cast<int>(chosen)) - 1) row.of_lane = {row.source, row.i};
    return;
  }
  if (selection.local < 0) return;
  const std::int32_t first =
      incoming.heard.counts[row.source * incoming.heard.num_counts + selection.local];
  row.of_lane = {selection.local, first + selection.index};
}

// One warp: what goes with the row, written once.
__device__ inline void describe_row(const LowLatencyDispatchParams& params,
                                    const ArrivingRow& row) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const LineArea& area = params.link.area;
  const std::int64_t at = std::int64_t{row.source} * area.max_tokens + row.i;
  const std::int32_t out = row.of_lane.row(params.rows_per_group);
  if (lane == 0) params.memory.source_token[at] = row.token;
  if (out >= 0) {
    params.src_info[out] = row.token;
    params.src_topk[out] = lane;
    if (params.src_weight != nullptr) params.src_weight[out] = row.weight_of_lane;
  }
  if (lane >= area.num_topk) return;
  const std::int64_t selection = at * area.num_topk + lane;
  params.memory.rows[selection] = out;
  if (params.memory.weights != nullptr) params.memory.weights[selection] = row.weight_of_lane;
  if (params.recv_topk_idx != nullptr) params.recv_topk_idx[selection] = row.local_of_lane;
  if (params.recv_topk_weights != nullptr) {
    params.recv_topk_weights[selection] = row.weight_of_lane;
  }
}

// Two scales, the first of which is number `column`.
__device__ inline void store_scales(const LowLatencyDispatchParams& params, const OutputRow& to,
                                    std::int32_t column, std::uint64_t word) {
  std::int32_t* const at =
      params.recv_scales +
      (std::int64_t{to.group} * params.num_scales + column) * params.rows_per_group + to.index;
  if (column < params.num_scales) at[0] = static_cast<std::int32_t>(word);
  if (column + 1 < params.num_scales) {
    at[params.rows_per_group] = static_cast<std::int32_t>(word >> 32);
  }
}

// The word at `offset` of a row's message, to the output row `to`.
__device__ inline void store_word(const LowLatencyDispatchParams& params, const RowBody& body,
                                  const OutputRow& to, std::size_t offset, std::uint64_t word) {
  const std::size_t header_bytes = RowHeader::bytes(params.link.area.num_topk);
  if (offset < header_bytes) return;
  const std::size_t at = offset - header_bytes;
  if (at < body.scale_bytes) {
    store_scales(params, to, static_cast<std::int32_t>(at / sizeof(std::int32_t)), word);
    return;
  }
  const std::size_t in_payload = at - body.scale_bytes;
  if (in_payload >= body.payload_bytes) return;
  const auto row = static_cast<std::size_t>(to.row(params.rows_per_group));
  *reinterpret_cast<std::uint64_t*>(params.recv_x + row * body.payload_bytes + in_payload) = word;
}

// One warp: a part of a row that has arrived, to every output row that the token has.
template <class Line>
__device__ void store_part(const LowLatencyDispatchParams& params, const RowBody& body,
                           const ArrivingRow& row, int first, int count,
                           const device::LineBatch<Line, kRowSteps>& part) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  for (unsigned left = __ballot_sync(~0U, row.of_lane.group >= 0); left != 0; left &= left - 1) {
    const int from = __ffs(static_cast<int>(left)) - 1;
    const OutputRow to{__shfl_sync(~0U, row.of_lane.group, from),
                       __shfl_sync(~0U, row.of_lane.index, from)};
#pragma unroll
    for (int step = 0; step < kRowSteps; ++step) {
      const int v = step * warpSize + lane;
      if (v >= count) break;
      const LineWords words = words_of_vector(Line::kFormat, first + v);
      store_word(params, body, to, words.first, Line::first(part.values[step]));
      if (!words.has_second) continue;
      store_word(params, body, to, words.first + kLineWordBytes, Line::second(part.values[step]));
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
  const RowBody body = RowBody::make(link.header.format, link.area.hidden);
  const std::size_t bytes = RowHeader::bytes(link.area.num_topk) + body.bytes();
  const int total = static_cast<int>(num_lines(Line::kFormat, bytes)) * kVectorsPerLine;
  const int first = part * kPartVectors;
  const int count = min(total - first, kPartVectors);
  const auto* const message = reinterpret_cast<const uint4*>(
      link.area_of(link.domain.rank) +
      link.area.row_offset(epoch, Rank(row.source), static_cast<std::size_t>(row.i)));
  const device::LineTarget target =
      line_target(link, Stage::kReceive, Rank(row.source), epoch, device::OnLoss::kRaise);
  device::LineBatch<Line, kRowSteps> batch;
  batch.load(message + first, count);
  std::uint32_t* const words =
      incoming.row_headers + static_cast<int>(threadIdx.x / warpSize) * kMaxHeaderWords32;
  if (await_header<Line>(link, target, message, words) != Arrival::kArrived) return false;
  resolve_row(params, incoming, words, row);
  if (part == 0) describe_row(params, row);
  if (device::await_lines(link.domain, target, message + first, count, batch) !=
      Arrival::kArrived) {
    return false;
  }
  store_part<Line>(params, body, row, first, count, batch);
  return true;
}

// All threads of a block: its share of all rows that arrive.
template <class Line>
__device__ void receive_rows(const LowLatencyDispatchParams& params, Epoch epoch,
                             const Incoming& incoming) {
  const LowLatencyLink& link = params.link;
  const RowBody body = RowBody::make(link.header.format, link.area.hidden);
  const std::size_t bytes = RowHeader::bytes(link.area.num_topk) + body.bytes();
  const int total = static_cast<int>(num_lines(Line::kFormat, bytes)) * kVectorsPerLine;
  const int num_parts = (total + kPartVectors - 1) / kPartVectors;
  const int num_units = incoming.first_unit[link.num_ranks()] * num_parts;
  const int stride = static_cast<int>(gridDim.x) * LowLatencyRoles::kNumWarps;
  // Neighbouring units go to different blocks: their memory is read by several SMs at once.
  int unit = static_cast<int>(threadIdx.x / warpSize * gridDim.x + blockIdx.x);
  ArrivingRow row{};
  for (; unit < num_units; unit += stride) {
    const int number = unit / num_parts;
    while (number >= incoming.first_unit[row.source + 1]) ++row.source;
    row.i = number - incoming.first_unit[row.source];
    if (!receive_part<Line>(params, epoch, incoming, row, unit - number * num_parts)) return;
  }
}

// All threads of a block: in the per-rank layout, the lists of rows that no token fills.
__device__ inline void clear_unused(const LowLatencyDispatchParams& params,
                                    const Incoming& incoming) {
  if (params.recv_topk_idx == nullptr) return;
  const LineArea& area = params.link.area;
  const int per_source = area.max_tokens * area.num_topk;
  for (int source = static_cast<int>(blockIdx.x); source < params.link.num_ranks();
       source += static_cast<int>(gridDim.x)) {
    const int used = incoming.first_unit[source + 1] - incoming.first_unit[source];
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
  receive_rows<Line>(params, epoch, incoming);
  clear_unused(params, incoming);
}

}  // namespace moelink::kernels
