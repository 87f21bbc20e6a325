// The scale of one block of 128 channels, from the largest magnitude in it.
#pragma once

#include <cstdint>
#include <cstring>

#include "moelink/host_device.hpp"
#include "moelink/quantize.hpp"

namespace moelink {

inline constexpr float kE4M3Max = 448.0f;
inline constexpr float kLeastAmax = 1e-4f;

struct BlockScale {
  float stored;   // value = quantised * stored
  float inverse;  // quantised = round(value * inverse)
};

MOELINK_HD inline std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
MOELINK_HD inline float float_of_bits(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// 2^ceil(log2(amax / 448)). An infinite amax gives an infinite scale, and 0 as its inverse.
MOELINK_HD inline BlockScale power_of_two_scale(float amax) {
  const std::uint32_t ratio = bits_of_float(amax * (1.0f / kE4M3Max));
  const std::uint32_t exponent = (ratio >> 23) + ((ratio & 0x7fffffu) != 0 ? 1u : 0u);
  const std::uint32_t inverse = exponent < 254u ? 254u - exponent : 0u;
  return {float_of_bits(exponent << 23), float_of_bits(inverse << 23)};
}

MOELINK_HD inline BlockScale block_scale(float largest, ScaleFormat format) {
  const float amax = largest > kLeastAmax ? largest : kLeastAmax;
  if (format != ScaleFormat::kFloat32) return power_of_two_scale(amax);
  return {amax * (1.0f / kE4M3Max), kE4M3Max / amax};
}

// The byte of kPackedUE8M0; infinity becomes 255, which that format calls NaN.
MOELINK_HD inline std::uint32_t ue8m0_byte(float power_of_two) {
  return bits_of_float(power_of_two) >> 23;
}

}  // namespace moelink
