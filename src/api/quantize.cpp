// quantize_fp8 and dequantize_fp8: validation and a loop over rows.
#include "moelink/quantize.hpp"

#include <bit>
#include <limits>
#include <vector>

#include "backend/cpu/simd/simd.hpp"
#include "base/check.hpp"

namespace moelink {
namespace {

constexpr std::int64_t kBlocksPerWord = 4;  // exponent bytes in an int32 of packed UE8M0 scales

bool is_float_row_type(DType dtype) {
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16 || dtype == DType::kFloat32;
}

bool is_empty(const TensorView& tensor) { return tensor.ndim == 0 || tensor.num_elements() == 0; }

// A matrix of whole scale blocks whose rows may lie apart, with adjacent channels.
void require_rows(Violations& violations, const char* name, const TensorView& rows) {
  violations.require(rows.ndim == 2, "{} is {}, expected 2 dimensions [tokens, channels]", name,
                     rows.describe());
  if (rows.ndim != 2) return;
  violations.require(rows.shape[1] > 0 && rows.shape[1] % kScaleBlock == 0,
                     "{} has {} channels, expected a positive multiple of {}", name, rows.shape[1],
                     kScaleBlock);
  violations.require(rows.strides[1] == 1 || is_empty(rows),
                     "{} has channels {} elements apart, expected 1 (contiguous rows)", name,
                     rows.strides[1]);
  violations.require(rows.data != nullptr || is_empty(rows), "{} is null, expected {} bytes", name,
                     rows.num_bytes());
}

void validate_quantize(const TensorView& x, ScaleFormat format) {
  Violations violations("quantize_fp8");
  violations.require(is_float_row_type(x.dtype),
                     "x has type {}, expected bfloat16, float16 or float32", dtype_name(x.dtype));
  require_rows(violations, "x", x);
  violations.require(format == ScaleFormat::kFloat32 || format == ScaleFormat::kPowerOfTwo ||
                         format == ScaleFormat::kPackedUE8M0,
                     "format is {}, expected a ScaleFormat (0, 1 or 2)", static_cast<int>(format));
  violations.throw_if_any();
}

void require_scales(Violations& violations, const TensorView& values, const TensorView& scales) {
  const bool packed = scales.dtype == DType::kInt32;
  violations.require(packed || scales.dtype == DType::kFloat32,
                     "scales have type {}, expected float32 or int32 (packed UE8M0)",
                     dtype_name(scales.dtype));
  violations.require(scales.data != nullptr || is_empty(scales), "scales are null");
  if (values.ndim != 2) return;
  const std::int64_t num_blocks = values.shape[1] / kScaleBlock;
  const std::int64_t width =
      packed ? (num_blocks + kBlocksPerWord - 1) / kBlocksPerWord : num_blocks;
  violations.require(
      scales.ndim == 2 && scales.shape[0] == values.shape[0] && scales.shape[1] == width,
      "scales are {}, expected [{}, {}] for values {}", scales.describe(), values.shape[0], width,
      values.describe());
}

void validate_dequantize(const TensorView& values, const TensorView& scales, DType dtype) {
  Violations violations("dequantize_fp8");
  violations.require(values.dtype == DType::kFloat8E4M3,
                     "values have type {}, expected float8_e4m3fn", dtype_name(values.dtype));
  require_rows(violations, "values", values);
  require_scales(violations, values, scales);
  violations.require(is_float_row_type(dtype), "dtype is {}, expected bfloat16, float16 or float32",
                     dtype_name(dtype));
  violations.throw_if_any();
}

std::byte* row_of(const TensorView& rows, std::int64_t row) {
  return rows.as<std::byte>() +
         row * rows.strides[0] * static_cast<std::int64_t>(dtype_size(rows.dtype));
}

Tensor make_scales(ScaleFormat format, std::int64_t num_tokens, std::int64_t num_blocks) {
  if (format != ScaleFormat::kPackedUE8M0) {
    return make_host_tensor(DType::kFloat32, {num_tokens, num_blocks});
  }
  return make_host_tensor(DType::kInt32,
                          {num_tokens, (num_blocks + kBlocksPerWord - 1) / kBlocksPerWord});
}

// 2^(byte - 127), with 255 for NaN as in float8_e8m0fnu.
float power_of_byte(std::uint32_t byte) {
  if (byte == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(byte == 0 ? 1u << 22 : byte << 23);
}

void read_scales(const TensorView& scales, std::int64_t row, std::vector<float>& out) {
  for (std::size_t block = 0; block < out.size(); ++block) {
    const auto index = static_cast<std::int64_t>(block);
    if (scales.dtype == DType::kFloat32) {
      out[block] = scales.as<float>()[row * scales.strides[0] + index * scales.strides[1]];
      continue;
    }
    const std::int64_t word = row * scales.strides[0] + index / kBlocksPerWord * scales.strides[1];
    const auto bits = static_cast<std::uint32_t>(scales.as<std::int32_t>()[word]);
    out[block] = power_of_byte(bits >> (index % kBlocksPerWord * 8) & 0xffu);
  }
}

}  // namespace

QuantizedRows quantize_fp8(const TensorView& x, ScaleFormat format) {
  validate_quantize(x, format);
  const std::int64_t num_tokens = x.shape[0];
  const std::int64_t num_channels = x.shape[1];
  QuantizedRows result;
  result.values = make_host_tensor(DType::kFloat8E4M3, {num_tokens, num_channels});
  result.scales = make_scales(format, num_tokens, num_channels / kScaleBlock);
  for (std::int64_t token = 0; token < num_tokens; ++token) {
    simd::quantize_row(row_of(x, token), x.dtype, static_cast<std::size_t>(num_channels), format,
                       reinterpret_cast<std::uint8_t*>(row_of(result.values.view, token)),
                       row_of(result.scales.view, token));
  }
  return result;
}

Tensor dequantize_fp8(const TensorView& values, const TensorView& scales, DType dtype) {
  validate_dequantize(values, scales, dtype);
  const auto num_channels = static_cast<std::size_t>(values.shape[1]);
  Tensor result = make_host_tensor(dtype, {values.shape[0], values.shape[1]});
  std::vector<float> row_scales(num_channels / kScaleBlock);
  for (std::int64_t token = 0; token < values.shape[0]; ++token) {
    read_scales(scales, token, row_scales);
    simd::dequantize_row(reinterpret_cast<const std::uint8_t*>(row_of(values, token)),
                         row_scales.data(), num_channels, row_of(result.view, token), dtype);
  }
  return result;
}

}  // namespace moelink
