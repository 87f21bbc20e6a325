// Arguments of the movers' versions for one SIMD target.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/dtypes.hpp"
#include "moelink/quantize.hpp"

namespace moelink::simd {

struct ConvertJob {
  const std::uint8_t* source;
  DType source_dtype;
  std::uint8_t* destination;
  DType destination_dtype;
  std::size_t num_channels;
};

struct QuantizeJob {
  const std::uint8_t* source;
  DType source_dtype;
  std::size_t num_blocks;  // of kScaleBlock channels
  ScaleFormat format;
  std::uint8_t* values;
  void* scales;
};

struct DequantizeJob {
  const std::uint8_t* values;
  const float* scales;
  std::size_t num_blocks;
  std::uint8_t* destination;
  DType destination_dtype;
};

}  // namespace moelink::simd
