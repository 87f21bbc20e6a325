// quantize_row and dequantize_row against scalar definitions, exhaustively for bfloat16.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/simd/simd.hpp"
#include "backend/simd_reference.hpp"

namespace moelink::simd {
namespace {

namespace ref = simd_reference;

constexpr std::size_t kBlock = 128;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Quantized {
  std::vector<std::uint8_t> values;
  std::vector<float> scales;
};

float expected_amax(const std::vector<float>& row, std::size_t block) {
  float amax = 1e-4f;
  for (std::size_t i = 0; i < kBlock; ++i) {
    amax = std::fmax(amax, std::fabs(row[block * kBlock + i]));  // fmax passes over NaN
  }
  return amax;
}

Quantized expected_quantized(const std::vector<float>& row, ScaleFormat format) {
  Quantized result;
  for (std::size_t block = 0; block < row.size() / kBlock; ++block) {
    const float amax = expected_amax(row, block);
    float scale = amax * (1.0f / 448.0f);
    float factor = 448.0f / amax;
    if (format != ScaleFormat::kFloat32) {
      int exponent = 0;
      const float fraction = std::frexp(scale, &exponent);  // scale = fraction * 2^exponent
      if (fraction == 0.5f) --exponent;
      scale = std::ldexp(1.0f, exponent);
      factor = std::ldexp(1.0f, -exponent);
    }
    result.scales.push_back(scale);
    for (std::size_t i = 0; i < kBlock; ++i) {
      result.values.push_back(ref::encode_e4m3(row[block * kBlock + i] * factor));
    }
  }
  return result;
}

Quantized quantized(const std::vector<float>& row, DType dtype, ScaleFormat format) {
  std::vector<std::uint32_t> source(row.size());
  for (std::size_t i = 0; i < row.size(); ++i) ref::store(source.data(), dtype, i, row[i]);
  Quantized result{std::vector<std::uint8_t>(row.size()), std::vector<float>(row.size() / kBlock)};
  quantize_row(source.data(), dtype, row.size(), format, result.values.data(),
               result.scales.data());
  return result;
}

void expect_quantized(const std::vector<float>& row, DType dtype, ScaleFormat format) {
  const Quantized expected = expected_quantized(row, format);
  ref::for_each_target([&](const std::string& target) {
    const Quantized result = quantized(row, dtype, format);
    EXPECT_EQ(result.scales, expected.scales) << target;
    EXPECT_EQ(result.values, expected.values) << target;
  });
}

// Values that `dtype` holds exactly, of very different magnitude from block to block.
std::vector<float> random_row(std::size_t num_channels, DType dtype) {
  std::mt19937 random(static_cast<std::uint32_t>(num_channels));
  std::normal_distribution<float> normal;
  std::vector<float> row(num_channels);
  for (std::size_t i = 0; i < num_channels; ++i) {
    const int exponent = static_cast<int>(i / kBlock * 5 % 24) - 12;
    row[i] = ref::round_to(dtype, std::ldexp(normal(random), exponent));
  }
  return row;
}

class SimdQuantize : public testing::TestWithParam<DType> {};

TEST_P(SimdQuantize, EqualsScalarDefinitionWithFloatScales) {
  expect_quantized(random_row(7168, GetParam()), GetParam(), ScaleFormat::kFloat32);
}

TEST_P(SimdQuantize, EqualsScalarDefinitionWithPowerOfTwoScales) {
  expect_quantized(random_row(7168, GetParam()), GetParam(), ScaleFormat::kPowerOfTwo);
}

TEST_P(SimdQuantize, DequantizedRowIsValueTimesScaleRoundedOnce) {
  const std::vector<float> scales = {1.0f, 0.37f, 1e-6f, 3e38f, kInfinity, 1e-40f};
  std::vector<std::uint8_t> values(scales.size() * kBlock);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::uint8_t>(i * 2 + i / kBlock);
  std::vector<std::uint32_t> expected(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ref::store(expected.data(), GetParam(), i, ref::decode_e4m3(values[i]) * scales[i / kBlock]);
  }
  ref::for_each_target([&](const std::string& target) {
    std::vector<std::uint32_t> row(values.size());
    dequantize_row(values.data(), scales.data(), values.size(), row.data(), GetParam());
    EXPECT_EQ(row, expected) << target;
  });
}

INSTANTIATE_TEST_SUITE_P(Types, SimdQuantize,
                         testing::Values(DType::kBFloat16, DType::kFloat16, DType::kFloat32),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

TEST(SimdQuantizeValues, EveryBFloat16RoundsAsDefinedAtScaleOne) {
  // 448 in each block makes the scale 1; larger values would change it and are left out.
  std::vector<float> row;
  for (std::uint32_t code = 0; code < 0x10000; ++code) {
    if (row.size() % kBlock == 0) row.push_back(448.0f);
    const float value = ref::decode(code, ref::kBFloat16Format);
    if (!(std::fabs(value) > 448.0f)) row.push_back(value);
  }
  row.resize((row.size() + kBlock - 1) / kBlock * kBlock, 448.0f);
  expect_quantized(row, DType::kBFloat16, ScaleFormat::kFloat32);
  expect_quantized(row, DType::kBFloat16, ScaleFormat::kPowerOfTwo);
}

TEST(SimdQuantizeValues, EveryTieBetweenTwoCodesGoesToTheEvenOne) {
  std::vector<float> row = {448.0f};
  for (std::uint8_t code = 0; code < 0x7e; ++code) {
    const float low = ref::decode_e4m3(code);
    row.push_back((low + ref::decode_e4m3(static_cast<std::uint8_t>(code + 1))) / 2);
  }
  row.resize(kBlock, -17.0f);
  const Quantized result = quantized(row, DType::kFloat32, ScaleFormat::kPowerOfTwo);
  for (std::size_t code = 0; code < 0x7e; ++code) {
    EXPECT_EQ(result.values[code + 1], code + code % 2) << row[code + 1];
  }
}

TEST(SimdQuantizeValues, EveryByteDequantizesExactly) {
  std::vector<std::uint8_t> bytes(256);
  for (std::size_t i = 0; i < 256; ++i) bytes[i] = static_cast<std::uint8_t>(i);
  const std::vector<float> scales = {1.0f, 1.0f};
  ref::for_each_target([&](const std::string& target) {
    std::vector<float> row(256);
    dequantize_row(bytes.data(), scales.data(), 256, row.data(), DType::kFloat32);
    for (std::size_t i = 0; i < 256; ++i) {
      const float expected = ref::decode_e4m3(bytes[i]);
      EXPECT_TRUE(std::isnan(expected) ? std::isnan(row[i]) : row[i] == expected)
          << target << ": byte " << i << " became " << row[i];
    }
  });
}

TEST(SimdQuantizeValues, NaNMarksItsOwnChannelOnly) {
  std::vector<float> row(kBlock, 2.0f);
  row[3] = std::numeric_limits<float>::quiet_NaN();
  ref::for_each_target([&](const std::string& target) {
    const Quantized result = quantized(row, DType::kBFloat16, ScaleFormat::kFloat32);
    EXPECT_EQ(result.values[3], 0x7f) << target;
    EXPECT_EQ(result.values[4], 0x7e) << target;
    EXPECT_EQ(result.scales[0], 2.0f * (1.0f / 448.0f)) << target;
  });
}

TEST(SimdQuantizeValues, InfinityMakesItsBlockInfiniteOrNaN) {
  std::vector<float> row(kBlock, 2.0f);
  row[5] = -kInfinity;
  for (const ScaleFormat format : {ScaleFormat::kFloat32, ScaleFormat::kPowerOfTwo}) {
    ref::for_each_target([&](const std::string& target) {
      const Quantized result = quantized(row, DType::kFloat32, format);
      EXPECT_EQ(result.scales[0], kInfinity) << target;
      EXPECT_EQ(result.values[5], 0x7f) << target;
      EXPECT_EQ(result.values[4], 0x00) << target;
    });
  }
}

TEST(SimdQuantizeValues, ZerosKeepTheirSignsAndGetTheLeastScale) {
  std::vector<float> row(kBlock, 0.0f);
  row[1] = -0.0f;
  const Quantized result = quantized(row, DType::kFloat16, ScaleFormat::kFloat32);
  EXPECT_EQ(result.values[0], 0x00);
  EXPECT_EQ(result.values[1], 0x80);
  EXPECT_EQ(result.scales[0], 1e-4f * (1.0f / 448.0f));
}

TEST(SimdQuantizeScales, PackedExponentsFollowThePowerOfTwoScales) {
  for (const std::size_t num_blocks : {1u, 3u, 4u, 5u, 14u}) {
    const std::vector<float> row = random_row(num_blocks * kBlock, DType::kBFloat16);
    const Quantized expected = expected_quantized(row, ScaleFormat::kPowerOfTwo);
    std::vector<std::uint32_t> words((num_blocks + 3) / 4, 0xffffffffu);
    std::vector<std::uint8_t> values(row.size());
    quantize_row(row.data(), DType::kFloat32, row.size(), ScaleFormat::kPackedUE8M0, values.data(),
                 words.data());
    EXPECT_EQ(values, expected.values);
    for (std::size_t block = 0; block < words.size() * 4; ++block) {
      const std::uint32_t byte = words[block / 4] >> (block % 4 * 8) & 0xffu;
      if (block >= num_blocks) {
        EXPECT_EQ(byte, 0u) << "missing block " << block;
      } else {
        EXPECT_EQ(std::ldexp(1.0f, static_cast<int>(byte) - 127), expected.scales[block]);
      }
    }
  }
}

}  // namespace
}  // namespace moelink::simd
