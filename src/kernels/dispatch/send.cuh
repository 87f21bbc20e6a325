// Role send: a warp carries the payload of its tokens to their final rows.
#pragma once

#include <cstdint>

#include "device/piece_pipe.cuh"
#include "kernels/dispatch/params.hpp"
#include "kernels/dispatch/route.cuh"
#include "kernels/dispatch/stages.hpp"

namespace moelink::kernels {

using Pipe = device::PiecePipe<kNumStages>;

// The rows of a warp, cut into pieces: piece `step` is number step % num_chunks of row
// first + step / num_chunks * stride.
struct PieceSequence {
  std::int64_t first;
  std::int64_t stride;
  std::int64_t end;
  std::size_t row_bytes;
  std::size_t chunk_bytes;

  __device__ int num_chunks() const {
    return static_cast<int>((row_bytes + chunk_bytes - 1) / chunk_bytes);
  }
  __device__ std::int64_t num_steps() const {
    return first >= end ? 0 : (end - first + stride - 1) / stride * num_chunks();
  }
  __device__ std::int64_t row(std::int64_t step) const {
    return first + step / num_chunks() * stride;
  }
  __device__ std::size_t offset(std::int64_t step) const {
    return static_cast<std::size_t>(step % num_chunks()) * chunk_bytes;
  }
  __device__ std::size_t bytes(std::int64_t step) const {
    const std::size_t left = row_bytes - offset(step);
    return left < chunk_bytes ? left : chunk_bytes;
  }
};

// One warp. `source(row)` is where a row lies; `put_row(step, row, offset, bytes)` puts one of its
// pieces to wherever it goes.
template <class Source, class PutRow>
__device__ void carry_rows(Pipe& pipe, const PieceSequence& pieces, const Source& source,
                           const PutRow& put_row) {
  const std::int64_t num_steps = pieces.num_steps();
  const auto load = [&](std::int64_t step) {
    const bool exists = step < num_steps;
    const std::byte* const from = exists ? source(pieces.row(step)) + pieces.offset(step) : nullptr;
    pipe.load(step, from, exists ? pieces.bytes(step) : 0);
  };
  for (std::int64_t step = 0; step < kNumStages - 1; ++step) load(step);
  for (std::int64_t step = 0; step < num_steps; ++step) {
    pipe.await(step);
    put_row(step, pieces.row(step), pieces.offset(step), pieces.bytes(step));
    pipe.commit();
    load(step + kNumStages - 1);
  }
  pipe.drain();
}

// The payload row of the calling lane's selection, for the selections that the sender itself
// writes: the first that leads to a rank, and all on its own rank; null for others. The receiver
// makes the rest (expand.cuh).
__device__ inline std::byte* expert_row_of_lane(const DispatchParams& params, std::int64_t token) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.topk.num_topk;
  const std::int64_t at = token * num_topk + lane;
  const int owner = lane < num_topk ? params.routing.topk_owner[at] : -1;
  const unsigned same_owner = __match_any_sync(~0U, owner);
  const bool is_first = (same_owner & ((1U << lane) - 1)) == 0;
  if (owner < 0 || (!is_first && owner != params.domain.rank.value())) return nullptr;
  return params.domain.peers[owner].part(ReceivePart::kPayload) +
         static_cast<std::size_t>(params.routing.expert_row[at]) * params.shape.row_bytes;
}

// The payload row of a token at the rank of the calling lane; null if it is not sent there.
__device__ inline std::byte* compact_row_of_lane(const DispatchParams& params, std::int64_t token,
                                                 int rank) {
  if (rank >= params.domain.num_ranks()) return nullptr;
  const std::int32_t row = params.routing.send_row[token * params.domain.num_ranks() + rank];
  if (row == kNoRow) return nullptr;
  return params.domain.peers[rank].part(ReceivePart::kPayload) +
         static_cast<std::size_t>(row) * params.shape.row_bytes;
}

// One warp.
__device__ inline void send_rows(const DispatchParams& params, Pipe& pipe,
                                 const PieceSequence& pieces) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const auto source = [&](std::int64_t token) {
    return params.x + static_cast<std::size_t>(token) * params.shape.row_bytes;
  };
  const auto put_at = [&](std::int64_t step, std::byte* row, std::size_t offset,
                          std::size_t bytes) {
    pipe.put(step, row == nullptr ? nullptr : row + offset, bytes);
  };
  carry_rows(pipe, pieces, source,
             [&](std::int64_t step, std::int64_t token, std::size_t offset, std::size_t bytes) {
               if (params.shape.layout == Layout::kExpertMajor) {
                 put_at(step, expert_row_of_lane(params, token), offset, bytes);
                 return;
               }
               for (int rank = lane; rank - lane < params.domain.num_ranks(); rank += warpSize) {
                 put_at(step, compact_row_of_lane(params, token, rank), offset, bytes);
               }
             });
}

}  // namespace moelink::kernels
