// The scale of one block of 128 channels, from the largest magnitude in it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "moelink/quantize.hpp"

namespace moelink::simd {

inline constexpr float kE4M3Max = 448.0f;
inline constexpr float kLeastAmax = 1e-4f;

struct BlockScale {
  float stored;   // value = quantised * stored
  float inverse;  // quantised = round(value * inverse)
};

// 2^ceil(log2(amax / 448)). An infinite amax gives an infinite scale, and 0 as its inverse.
inline BlockScale power_of_two_scale(float amax) {
  const auto ratio = std::bit_cast<std::uint32_t>(amax * (1.0f / kE4M3Max));
  const std::uint32_t exponent = (ratio >> 23) + ((ratio & 0x7fffffu) != 0 ? 1u : 0u);
  const std::uint32_t inverse = std::max(254u, exponent) - exponent;
  return {std::bit_cast<float>(exponent << 23), std::bit_cast<float>(inverse << 23)};
}

inline BlockScale block_scale(float largest, ScaleFormat format) {
  const float amax = std::max(kLeastAmax, largest);
  if (format != ScaleFormat::kFloat32) return power_of_two_scale(amax);
  return {amax * (1.0f / kE4M3Max), kE4M3Max / amax};
}

// The byte of kPackedUE8M0; infinity becomes 255, which that format calls NaN.
inline std::uint32_t ue8m0_byte(float power_of_two) {
  return std::bit_cast<std::uint32_t>(power_of_two) >> 23;
}

}  // namespace moelink::simd
