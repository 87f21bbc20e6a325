// Role send_back: a warp brings rows of the local experts into symmetric memory.
#pragma once

#include <cstdint>

#include "kernels/combine/params.hpp"
#include "kernels/combine/roles.hpp"
#include "protocol/limits.hpp"

namespace moelink::kernels {

inline constexpr std::size_t kVectorBytes = sizeof(uint4);

// Vectors that a lane copies at a time: enough loads in flight to hide the latency of memory.
inline constexpr int kCopyUnroll = 4;

// One warp.
__device__ inline void copy_row(const std::byte* from, std::byte* to, std::size_t row_bytes) {
  const auto* const source = reinterpret_cast<const uint4*>(from);
  auto* const target = reinterpret_cast<uint4*>(to);
  const std::size_t count = row_bytes / kVectorBytes;
  for (std::size_t i = threadIdx.x % warpSize; i < count; i += kCopyUnroll * warpSize) {
    uint4 held[kCopyUnroll];
#pragma unroll
    for (int j = 0; j < kCopyUnroll; ++j) {
      const std::size_t at = i + static_cast<unsigned>(j * warpSize);
      if (at < count) held[j] = source[at];
    }
#pragma unroll
    for (int j = 0; j < kCopyUnroll; ++j) {
      const std::size_t at = i + static_cast<unsigned>(j * warpSize);
      if (at < count) target[at] = held[j];
    }
  }
}

// One warp: adds the rows of the lanes that have one, lanes ascending, and rounds the sum.
template <class Codec>
__device__ void add_rows(const StageParams& params, std::int32_t row_of_lane, std::byte* to) {
  const unsigned lanes = __ballot_sync(~0U, row_of_lane >= 0);
  const std::size_t count = params.row_bytes / kVectorBytes;
  for (std::size_t first = 0; first < count; first += warpSize) {
    const std::size_t at = first + threadIdx.x % warpSize;
    float sums[Codec::kPerVector] = {};
    for (unsigned left = lanes; left != 0; left &= left - 1) {
      const std::int64_t row = __shfl_sync(~0U, row_of_lane, __ffs(static_cast<int>(left)) - 1);
      const auto* const source = reinterpret_cast<const uint4*>(
          params.x + static_cast<std::size_t>(row) * params.row_bytes);
      if (at < count) Codec::add(sums, source[at]);
    }
    if (at < count) reinterpret_cast<uint4*>(to)[at] = Codec::pack(sums);
  }
}

// One warp: compact row `row`.
template <class Codec>
__device__ void stage_row(const StageParams& params, std::int64_t row) {
  std::byte* const to = params.staged + static_cast<std::size_t>(row) * params.row_bytes;
  if (params.expert_row == nullptr) {
    copy_row(params.x + static_cast<std::size_t>(row) * params.row_bytes, to, params.row_bytes);
    return;
  }
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const std::int32_t row_of_lane =
      lane < params.num_topk ? params.expert_row[row * params.num_topk + lane] : -1;
  add_rows<Codec>(params, row_of_lane, to);
}

}  // namespace moelink::kernels
