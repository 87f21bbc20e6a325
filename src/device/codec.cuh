// Element types that can be summed: 16-byte vectors to and from float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>

namespace moelink::device {

// What every codec offers: kPerVector elements in 16 bytes, add() of a vector to sums, pack() of
// sums rounded to nearest even, and round() to the type and back. NaN becomes one quiet NaN: that
// of the hardware's conversions, for which the CPU writes the same.
struct Float32Codec {
  static constexpr int kPerVector = 4;

  static __device__ void add(float* sums, const uint4& vector) {
    sums[0] += __uint_as_float(vector.x);
    sums[1] += __uint_as_float(vector.y);
    sums[2] += __uint_as_float(vector.z);
    sums[3] += __uint_as_float(vector.w);
  }
  static __device__ float round(float value) { return value; }
  static __device__ uint4 pack(const float* sums) {
    return make_uint4(bits(sums[0]), bits(sums[1]), bits(sums[2]), bits(sums[3]));
  }

 private:
  static __device__ std::uint32_t bits(float value) {
    return isnan(value) ? 0x7fc00000U : __float_as_uint(value);
  }
};

// A codec of 16-bit elements: Pair reads and writes two of them, the first in the lower half.
template <class Pair>
struct HalfCodec {
  static constexpr int kPerVector = 8;

  static __device__ void add(float* sums, const uint4& vector) {
    Pair::add(sums + 0, vector.x);
    Pair::add(sums + 2, vector.y);
    Pair::add(sums + 4, vector.z);
    Pair::add(sums + 6, vector.w);
  }
  static __device__ float round(float value) { return Pair::round(value); }
  static __device__ uint4 pack(const float* sums) {
    return make_uint4(Pair::pack(sums + 0), Pair::pack(sums + 2), Pair::pack(sums + 4),
                      Pair::pack(sums + 6));
  }
};

struct BFloat16Pair {
  static __device__ void add(float* sums, std::uint32_t both) {
    sums[0] += __uint_as_float(both << 16);
    sums[1] += __uint_as_float(both & 0xffff0000U);
  }
  static __device__ float round(float value) {
    return __bfloat162float(__float2bfloat16_rn(value));
  }
  static __device__ std::uint32_t pack(const float* sums) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(sums[0], sums[1]);
    return *reinterpret_cast<const std::uint32_t*>(&both);
  }
};

struct Float16Pair {
  static __device__ void add(float* sums, std::uint32_t both) {
    sums[0] += __half2float(__ushort_as_half(static_cast<unsigned short>(both)));
    sums[1] += __half2float(__ushort_as_half(static_cast<unsigned short>(both >> 16)));
  }
  static __device__ float round(float value) { return __half2float(__float2half_rn(value)); }
  static __device__ std::uint32_t pack(const float* sums) {
    const __half2 both = __floats2half2_rn(sums[0], sums[1]);
    return *reinterpret_cast<const std::uint32_t*>(&both);
  }
};

struct BFloat16Codec : HalfCodec<BFloat16Pair> {};
struct Float16Codec : HalfCodec<Float16Pair> {};

}  // namespace moelink::device
