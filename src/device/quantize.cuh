// Quantises bfloat16 to float8_e4m3fn with a scale per 128 channels, as the CPU does bit for bit.
#pragma once

#include <cuda_fp8.h>
#include <cstdint>

#include "moelink/quantize.hpp"
#include "protocol/block_scale.hpp"

namespace moelink::device {

// Lanes that hold a block of 128 channels, a vector of 8 each.
constexpr int kLanesPerBlock = 16;

// The larger magnitude of two bfloat16, as the bits of one; 0 for NaN: it must not hide the scale
// of its neighbours.
__device__ inline std::uint32_t magnitude_of_pair(std::uint32_t pair) {
  constexpr std::uint32_t kInfinity = 0x7f80;
  const std::uint32_t low = pair & 0x7fffU;
  const std::uint32_t high = pair >> 16 & 0x7fffU;
  return max(low > kInfinity ? 0U : low, high > kInfinity ? 0U : high);
}

// All lanes of a warp: the scale of the block that the calling lane's vector belongs to.
__device__ inline BlockScale scale_of_block(const uint4& vector, ScaleFormat format) {
  std::uint32_t largest = max(max(magnitude_of_pair(vector.x), magnitude_of_pair(vector.y)),
                              max(magnitude_of_pair(vector.z), magnitude_of_pair(vector.w)));
#pragma unroll
  for (int step = kLanesPerBlock / 2; step > 0; step /= 2) {
    largest = max(largest, __shfl_xor_sync(~0U, largest, step));
  }
  return block_scale(__uint_as_float(largest << 16), format);
}

// Four bfloat16 to four bytes.
__device__ inline std::uint32_t quantize_four(std::uint32_t first, std::uint32_t second,
                                              float inverse) {
  const auto pair = [inverse](std::uint32_t both) {
    const float low = __fmul_rn(__uint_as_float(both << 16), inverse);
    const float high = __fmul_rn(__uint_as_float(both & 0xffff0000U), inverse);
    return static_cast<std::uint32_t>(
        __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3));
  };
  return pair(first) | pair(second) << 16;
}

__device__ inline uint2 quantize_vector(const uint4& vector, float inverse) {
  return make_uint2(quantize_four(vector.x, vector.y, inverse),
                    quantize_four(vector.z, vector.w, inverse));
}

}  // namespace moelink::device
