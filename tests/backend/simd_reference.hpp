// Plain scalar conversions that the tests of the movers compare against, written from the formats'
// definitions: every value is searched or computed in double precision.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "backend/cpu/simd/targets.hpp"
#include "moelink/dtypes.hpp"

namespace moelink::simd_reference {

struct Format {
  int mantissa_bits;
  int least_exponent;  // of normal numbers
  int total_bits;
};

inline constexpr Format kBFloat16Format{7, -126, 16};
inline constexpr Format kFloat16Format{10, -14, 16};

inline std::uint32_t canonical_nan(const Format& format) {
  return (1u << (format.total_bits - 1)) - 1;  // all bits but the sign, as GPUs convert
}

// Rounds to nearest even by scaling to whole steps; too large becomes infinity.
inline std::uint32_t encode(float value, const Format& format) {
  const int exponent_bits = format.total_bits - 1 - format.mantissa_bits;
  if (std::isnan(value)) return canonical_nan(format);
  const std::uint32_t sign = (std::signbit(value) ? 1u : 0u) << (format.total_bits - 1);
  const std::uint32_t infinity = ((1u << exponent_bits) - 1) << format.mantissa_bits;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(magnitude)) return sign | infinity;
  int exponent = magnitude == 0 ? format.least_exponent : std::ilogb(magnitude);
  exponent = std::max(exponent, format.least_exponent);
  const double steps = std::nearbyint(std::ldexp(magnitude, format.mantissa_bits - exponent));
  const auto biased = static_cast<std::uint32_t>(exponent - format.least_exponent);
  const std::uint32_t code = (biased << format.mantissa_bits) + static_cast<std::uint32_t>(steps);
  return sign | std::min(code, infinity);
}

inline float decode(std::uint32_t code, const Format& format) {
  const int exponent_bits = format.total_bits - 1 - format.mantissa_bits;
  const std::uint32_t magnitude = code & ((1u << (format.total_bits - 1)) - 1);
  const auto exponent = static_cast<int>(magnitude >> format.mantissa_bits);
  const std::uint32_t mantissa = magnitude & ((1u << format.mantissa_bits) - 1);
  const double sign = (code >> (format.total_bits - 1)) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                         : static_cast<float>(sign * std::numeric_limits<double>::infinity());
  }
  const double fraction = mantissa + (exponent > 0 ? 1u << format.mantissa_bits : 0u);
  const int power = std::max(exponent, 1) - 1 + format.least_exponent - format.mantissa_bits;
  return static_cast<float>(std::copysign(std::ldexp(fraction, power), sign));
}

inline float decode_e4m3(std::uint8_t byte) {
  if ((byte & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  const int exponent = (byte >> 3) & 15;
  const double fraction = (byte & 7) + (exponent > 0 ? 8 : 0);
  const double magnitude = std::ldexp(fraction, std::max(exponent, 1) - 10);
  return static_cast<float>((byte & 0x80) != 0 ? -magnitude : magnitude);
}

// The nearest of the 127 magnitudes, the even code of two equally near.
inline std::uint8_t encode_e4m3(float value) {
  if (std::isnan(value)) return 0x7f;
  const double magnitude = std::fabs(static_cast<double>(value));
  std::uint8_t best = 0x7e;
  for (std::uint8_t code = 0; code < 0x7f && magnitude < 448; ++code) {
    const double distance = std::fabs(static_cast<double>(decode_e4m3(code)) - magnitude);
    const double least = std::fabs(static_cast<double>(decode_e4m3(best)) - magnitude);
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

// Rows as raw bytes, one channel at a time.
inline float load(const void* row, DType dtype, std::size_t channel) {
  std::uint32_t code = 0;
  std::memcpy(&code, static_cast<const std::uint8_t*>(row) + channel * dtype_size(dtype),
              dtype_size(dtype));
  if (dtype == DType::kFloat32) return std::bit_cast<float>(code);
  return decode(code, dtype == DType::kBFloat16 ? kBFloat16Format : kFloat16Format);
}

inline void store(void* row, DType dtype, std::size_t channel, float value) {
  std::uint32_t code = std::isnan(value) ? 0x7fc00000u : std::bit_cast<std::uint32_t>(value);
  if (dtype != DType::kFloat32) {
    code = encode(value, dtype == DType::kBFloat16 ? kBFloat16Format : kFloat16Format);
  }
  std::memcpy(static_cast<std::uint8_t*>(row) + channel * dtype_size(dtype), &code,
              dtype_size(dtype));
}

inline float round_to(DType dtype, float value) {
  float stored = 0;
  store(&stored, dtype, 0, value);
  return load(&stored, dtype, 0);
}

// Calls `check(name)` with the movers limited to each supported target in turn.
template <class Check>
void for_each_target(const Check& check) {
  for (const std::string& name : simd::supported_targets()) {
    simd::limit_targets(name);
    check(name);
  }
  simd::limit_targets("");
}

}  // namespace moelink::simd_reference
