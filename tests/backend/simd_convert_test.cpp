// convert_row and target selection, against conversions written from the formats' definitions.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/simd/targets.hpp"
#include "backend/simd_reference.hpp"
#include "moelink/errors.hpp"

namespace moelink::simd {
namespace {

namespace ref = simd_reference;

// The values around every rounding boundary of both 16-bit types, and random bit patterns.
std::vector<float> interesting_floats() {
  std::vector<float> values;
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    for (std::uint32_t code = 0; code < 0x10000; ++code) {
      const auto narrow = static_cast<std::uint16_t>(code);
      const auto bits = std::bit_cast<std::uint32_t>(ref::load(&narrow, dtype, 0));
      const std::uint32_t half_step = dtype == DType::kBFloat16 ? 0x8000u : 0x1000u;
      for (const std::uint32_t beyond : {0u, 1u, half_step - 1, half_step, half_step + 1}) {
        values.push_back(std::bit_cast<float>(bits + beyond));
      }
    }
  }
  for (std::uint32_t step = 0; step < 2 * 1026; ++step) {  // half steps of float16 subnormals
    values.push_back(std::ldexp(static_cast<float>(step), -25));
    values.push_back(std::nextafter(values.back(), 1.0f));
  }
  std::mt19937 random(7);
  for (int i = 0; i < 100000; ++i) {
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
  return values;
}

void expect_rounded(DType dtype) {
  const std::vector<float> values = interesting_floats();
  std::vector<std::uint16_t> expected(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) ref::store(expected.data(), dtype, i, values[i]);
  ref::for_each_target([&](const std::string& target) {
    std::vector<std::uint16_t> narrow(values.size());
    convert_row(values.data(), DType::kFloat32, narrow.data(), dtype, values.size());
    std::size_t num_wrong = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (narrow[i] == expected[i]) continue;
      if (num_wrong++ > 5) break;
      ADD_FAILURE() << target << ": " << values[i] << " became " << narrow[i] << ", expected "
                    << expected[i];
    }
  });
}

TEST(SimdConvert, Float32RoundsToNearestEvenBFloat16) { expect_rounded(DType::kBFloat16); }

TEST(SimdConvert, Float32RoundsToNearestEvenFloat16) { expect_rounded(DType::kFloat16); }

void expect_widened(DType dtype) {
  std::vector<std::uint16_t> codes(0x10000);
  std::iota(codes.begin(), codes.end(), std::uint16_t{0});
  ref::for_each_target([&](const std::string& target) {
    std::vector<float> wide(codes.size());
    convert_row(codes.data(), dtype, wide.data(), DType::kFloat32, codes.size());
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const float expected = ref::load(codes.data(), dtype, i);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(wide[i])) << target << ": code " << i;
      } else {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), std::bit_cast<std::uint32_t>(expected))
            << target << ": code " << i;
      }
    }
  });
}

TEST(SimdConvert, EveryBFloat16WidensExactly) { expect_widened(DType::kBFloat16); }

TEST(SimdConvert, EveryFloat16WidensExactly) { expect_widened(DType::kFloat16); }

TEST(SimdConvert, Float16BecomesBFloat16AndBackForAnyLength) {
  for (std::size_t num_channels = 0; num_channels < 70; ++num_channels) {
    std::vector<std::uint16_t> halves(num_channels + 1, 0xa5a5);
    for (std::size_t i = 0; i < num_channels; ++i) {
      ref::store(halves.data(), DType::kFloat16, i, static_cast<float>(i) - 9.5f);
    }
    ref::for_each_target([&](const std::string& target) {
      std::vector<std::uint16_t> brains(num_channels + 1, 0xa5a5);
      std::vector<std::uint16_t> back(num_channels + 1, 0xa5a5);
      convert_row(halves.data(), DType::kFloat16, brains.data(), DType::kBFloat16, num_channels);
      convert_row(brains.data(), DType::kBFloat16, back.data(), DType::kFloat16, num_channels);
      EXPECT_EQ(back, halves) << target << ", " << num_channels << " channels";
      EXPECT_EQ(brains.back(), 0xa5a5) << target << ", " << num_channels << " channels";
    });
  }
}

TEST(SimdConvert, SameTypeCopiesBitsOfNaN) {
  const std::vector<std::uint16_t> row = {0x7f81, 0xffc1, 0x8000};
  std::vector<std::uint16_t> copy(3);
  convert_row(row.data(), DType::kBFloat16, copy.data(), DType::kBFloat16, 3);
  EXPECT_EQ(copy, row);
}

TEST(SimdTargets, LimitSelectsTheNamedTarget) {
  ref::for_each_target(
      [](const std::string& name) { EXPECT_EQ(std::string(target_name()), name); });
  EXPECT_EQ(std::string(target_name()), supported_targets().front());
}

TEST(SimdTargets, LimitIgnoresCaseAndTakesPrefixes) {
  const std::string lowest = supported_targets().back();
  limit_targets("scalar");
  EXPECT_EQ(std::string(target_name()), lowest);
  std::string prefix = supported_targets().front().substr(0, 3);
  for (char& letter : prefix) letter = static_cast<char>(std::tolower(letter));
  limit_targets(prefix);
  EXPECT_EQ(std::string(target_name()), supported_targets().front());
  limit_targets("");
}

TEST(SimdTargets, UnknownNameIsAnErrorThatListsTheTargets) {
  try {
    limit_targets("mmx");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find(supported_targets().front()), std::string::npos);
  }
}

}  // namespace
}  // namespace moelink::simd
