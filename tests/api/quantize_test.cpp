// quantize_fp8 and dequantize_fp8: shapes, strides, scale formats and what is refused.
#include "moelink/quantize.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "moelink/errors.hpp"

namespace moelink {
namespace {

constexpr std::int64_t kTokens = 5;

Tensor random_rows(std::int64_t num_channels) {
  Tensor x = make_host_tensor(DType::kFloat32, {kTokens, num_channels});
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < x.view.num_elements(); ++i) x.view.as<float>()[i] = normal(random);
  return x;
}

std::string error_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "no error";
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

class QuantizeFp8 : public testing::TestWithParam<ScaleFormat> {};

TEST_P(QuantizeFp8, RoundTripStaysWithinHalfAStep) {
  const Tensor x = random_rows(640);
  const QuantizedRows rows = quantize_fp8(x.view, GetParam());
  const Tensor back = dequantize_fp8(rows.values.view, rows.scales.view, DType::kFloat32);
  for (std::int64_t i = 0; i < x.view.num_elements(); ++i) {
    const float value = x.view.as<float>()[i];
    // 3 mantissa bits: at most 1/16 of the value, or half of 2^-9 of a scale near 1/448..1/224.
    const float bound = std::fmax(std::fabs(value) / 16, 5.0f / 224 / 1024);
    EXPECT_NEAR(back.view.as<float>()[i], value, bound);
  }
}

TEST_P(QuantizeFp8, NoTokensGiveEmptyResults) {
  const TensorView x = TensorView::contiguous(nullptr, DType::kBFloat16, {0, 256});
  const QuantizedRows rows = quantize_fp8(x, GetParam());
  EXPECT_EQ(rows.values.view.shape[0], 0);
  EXPECT_EQ(rows.values.view.shape[1], 256);
  EXPECT_EQ(rows.scales.view.shape[0], 0);
  const Tensor back = dequantize_fp8(rows.values.view, rows.scales.view, DType::kBFloat16);
  EXPECT_EQ(back.view.shape[0], 0);
}

TEST_P(QuantizeFp8, RowsMayLieApart) {
  const Tensor x = random_rows(256);
  TensorView every_second = x.view;
  every_second.shape[0] = 3;
  every_second.strides[0] = 2 * 256;
  const QuantizedRows all = quantize_fp8(x.view, GetParam());
  const QuantizedRows some = quantize_fp8(every_second, GetParam());
  for (std::size_t row = 0; row < 3; ++row) {
    EXPECT_EQ(std::memcmp(some.values.view.as<char>() + row * 256,
                          all.values.view.as<char>() + row * 2 * 256, 256),
              0);
  }
}

TEST_P(QuantizeFp8, RowsMayBeginAtAnyElement) {
  Tensor x = make_host_tensor(DType::kFloat16, {2, 257});
  std::memset(x.view.data, 0x3c, x.view.num_bytes());
  TensorView odd = x.view;
  odd.data = x.view.as<std::uint16_t>() + 1;
  odd.shape[1] = 256;
  odd.shape[0] = 1;
  const QuantizedRows rows = quantize_fp8(odd, GetParam());
  const Tensor back = dequantize_fp8(rows.values.view, rows.scales.view, DType::kFloat32);
  for (std::size_t i = 0; i < 256; ++i) EXPECT_NEAR(back.view.as<float>()[i], 1.0586f, 0.07f);
}

TEST_P(QuantizeFp8, ScalesMayBeColumnMajor) {
  const QuantizedRows rows = quantize_fp8(random_rows(1280).view, GetParam());
  const TensorView& scales = rows.scales.view;
  std::vector<std::int32_t> columns(static_cast<std::size_t>(scales.num_elements()));
  for (std::int64_t i = 0; i < scales.num_elements(); ++i) {
    const std::int64_t row = i / scales.shape[1];
    const std::int64_t column = i % scales.shape[1];
    columns[static_cast<std::size_t>(column * kTokens + row)] = scales.as<std::int32_t>()[i];
  }
  TensorView transposed = scales;
  transposed.data = columns.data();
  transposed.strides = {1, kTokens};
  const Tensor expected = dequantize_fp8(rows.values.view, scales, DType::kBFloat16);
  const Tensor back = dequantize_fp8(rows.values.view, transposed, DType::kBFloat16);
  EXPECT_EQ(std::memcmp(back.view.data, expected.view.data, back.view.num_bytes()), 0);
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizeFp8,
                         testing::Values(ScaleFormat::kFloat32, ScaleFormat::kPowerOfTwo,
                                         ScaleFormat::kPackedUE8M0));

TEST(QuantizeFp8Scales, PackedWordsHoldTheExponentsLowByteFirst) {
  const Tensor x = random_rows(640);
  const QuantizedRows floats = quantize_fp8(x.view, ScaleFormat::kPowerOfTwo);
  const QuantizedRows packed = quantize_fp8(x.view, ScaleFormat::kPackedUE8M0);
  EXPECT_EQ(packed.scales.view.describe(), "int32 [5, 2]");
  EXPECT_EQ(floats.scales.view.describe(), "float32 [5, 5]");
  for (std::int64_t token = 0; token < kTokens; ++token) {
    const auto* const bytes = packed.scales.view.as<std::uint8_t>() + token * 8;
    for (std::int64_t block = 0; block < 5; ++block) {
      EXPECT_EQ(std::ldexp(1.0f, bytes[block] - 127),
                floats.scales.view.as<float>()[token * 5 + block]);
    }
    EXPECT_EQ(bytes[5] | bytes[6] | bytes[7], 0);
  }
}

TEST(DequantizeFp8Scales, ExtremeExponentBytesAreTinyOrNaN) {
  const Tensor values = make_host_tensor(DType::kFloat8E4M3, {1, 256});
  std::memset(values.view.data, 0x38, 256);  // 1.0
  const Tensor scales = make_host_tensor(DType::kInt32, {1, 1});
  scales.view.as<std::int32_t>()[0] = 0xff00;
  const Tensor back = dequantize_fp8(values.view, scales.view, DType::kFloat32);
  EXPECT_EQ(back.view.as<float>()[0], std::ldexp(1.0f, -127));
  EXPECT_TRUE(std::isnan(back.view.as<float>()[128]));
}

TEST(QuantizeFp8Errors, EveryWrongThingIsReported) {
  const Tensor x = make_host_tensor(DType::kInt8, {3, 100});
  const std::string message = error_of([&] { quantize_fp8(x.view, ScaleFormat::kFloat32); });
  expect_contains(message, "int8");
  expect_contains(message, "100 channels");
  expect_contains(message, "multiple of 128");
}

TEST(QuantizeFp8Errors, VectorIsRefused) {
  const Tensor x = make_host_tensor(DType::kFloat32, {128});
  expect_contains(error_of([&] { quantize_fp8(x.view, ScaleFormat::kFloat32); }),
                  "float32 [128], expected 2 dimensions");
}

TEST(QuantizeFp8Errors, TransposedRowsAndNullAreRefused) {
  TensorView x = TensorView::contiguous(nullptr, DType::kFloat32, {128, 128});
  x.strides = {1, 128};
  const std::string message = error_of([&] { quantize_fp8(x, ScaleFormat::kFloat32); });
  expect_contains(message, "128 elements apart");
  expect_contains(message, "x is null");
}

TEST(DequantizeFp8Errors, WrongTypesAndShapesAreReportedTogether) {
  const Tensor values = make_host_tensor(DType::kUInt8, {2, 256});
  const Tensor scales = make_host_tensor(DType::kFloat16, {2, 3});
  const std::string message =
      error_of([&] { dequantize_fp8(values.view, scales.view, DType::kInt64); });
  expect_contains(message, "values have type uint8");
  expect_contains(message, "scales have type float16");
  expect_contains(message, "float16 [2, 3], expected [2, 2]");
  expect_contains(message, "dtype is int64");
}

TEST(DequantizeFp8Errors, PackedScalesOfFloatWidthAreRefused) {
  const Tensor values = make_host_tensor(DType::kFloat8E4M3, {2, 640});
  const Tensor scales = make_host_tensor(DType::kInt32, {2, 5});
  expect_contains(error_of([&] { dequantize_fp8(values.view, scales.view, DType::kFloat32); }),
                  "expected [2, 2]");
}

}  // namespace
}  // namespace moelink
