// Role send: a warp carries the payload of its tokens to their final rows.
#pragma once

#include <cstdint>

#include "kernels/carry_rows.cuh"
#include "kernels/dispatch/params.hpp"
#include "kernels/dispatch/route.cuh"
#include "kernels/dispatch/stages.hpp"

namespace moelink::kernels {

using Pipe = device::PiecePipe<kNumStages>;

// Which rows of an expert-major dispatch a warp writes.
enum class RowChoice : std::uint8_t {
  kFirstOfPeers,        // the first of a token on each other rank; the receiver makes the rest
  kOwn,                 // all on its own rank
  kFirstOfPeersAndOwn,  // both
};

// The payload row of the calling lane's selection, if it is chosen; null if not.
__device__ inline std::byte* expert_row_of_lane(const DispatchParams& params, RowChoice choice,
                                                std::int64_t token) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int num_topk = params.topk.num_topk;
  const std::int64_t at = token * num_topk + lane;
  const int owner = lane < num_topk ? params.routing.topk_owner[at] : -1;
  const unsigned same_owner = __match_any_sync(~0U, owner);
  const bool is_first = (same_owner & ((1U << lane) - 1)) == 0;
  const bool is_own = owner == params.domain.rank.value();
  const RowChoice unwanted = is_own ? RowChoice::kFirstOfPeers : RowChoice::kOwn;
  if (owner < 0 || choice == unwanted || (!is_own && !is_first)) return nullptr;
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

// One warp. `choice`: for expert-major rows.
__device__ inline void send_rows(const DispatchParams& params, RowChoice choice, Pipe& pipe,
                                 const RowPieces& pieces) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const auto source = [&](int token) {
    return params.x + static_cast<std::size_t>(token) * params.shape.row_bytes;
  };
  const auto put_at = [&](std::uint32_t step, std::byte* row, std::size_t offset,
                          std::size_t bytes) {
    pipe.put(step, row == nullptr ? nullptr : row + offset, bytes);
  };
  carry_rows(pipe, 0, PieceCursor(pieces), source,
             [&](std::uint32_t step, int token, std::size_t offset, std::size_t bytes) {
               if (params.shape.layout == Layout::kExpertMajor) {
                 put_at(step, expert_row_of_lane(params, choice, token), offset, bytes);
                 return;
               }
#pragma unroll 1
               for (int rank = lane; rank - lane < params.domain.num_ranks(); rank += warpSize) {
                 put_at(step, compact_row_of_lane(params, token, rank), offset, bytes);
               }
             });
}

}  // namespace moelink::kernels
