// Block-scaled FP8: a float8_e4m3fn per channel and a scale per 128 channels.
#pragma once

#include <cstdint>

#include "moelink/types.hpp"

namespace moelink {

enum class ScaleFormat : std::uint8_t {
  kFloat32,      // scale = amax / 448
  kPowerOfTwo,   // float32, scale = 2^ceil(log2(amax / 448))
  kPackedUE8M0,  // the same, as 4 exponent bytes per int32, first block in the low byte
};

struct QuantizedRows {
  Tensor values;  // float8_e4m3fn [T, H]
  Tensor scales;  // float32 [T, H/128], or int32 [T, ceil(H/512)] for kPackedUE8M0
};

// Quantises bfloat16, float16 or float32 rows. Per block: amax = max(1e-4, max|x|); values are
// saturated and rounded to nearest even. H must be a multiple of 128.
// Throws Error(kInvalidArgument) naming what is wrong.
QuantizedRows quantize_fp8(const TensorView& x, ScaleFormat format);

// The inverse up to rounding; `dtype` is bfloat16, float16 or float32. The scale format follows
// from the type of the scales (int32: packed UE8M0); scales may have any strides.
Tensor dequantize_fp8(const TensorView& values, const TensorView& scales, DType dtype);

}  // namespace moelink
