// Scales of blocks, for ordinary magnitudes and for those at the edges of float32.
#include "protocol/block_scale.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace moelink {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

TEST(BlockScale, OfFloat32DividesByTheLargestNumber) {
  for (const float amax : {1.0F, 448.0F, 3.5F, 1e-3F, 65504.0F}) {
    const BlockScale scale = block_scale(amax, ScaleFormat::kFloat32);
    EXPECT_EQ(scale.stored, amax * (1.0F / 448.0F));
    EXPECT_EQ(scale.inverse, 448.0F / amax);
  }
}

TEST(BlockScale, OfSmallMagnitudesIsThatOfTheLeast) {
  for (const ScaleFormat format :
       {ScaleFormat::kFloat32, ScaleFormat::kPowerOfTwo, ScaleFormat::kPackedUE8M0}) {
    const BlockScale least = block_scale(kLeastAmax, format);
    EXPECT_GT(least.stored, 0.0F);
    for (const float amax :
         {0.0F, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::min(),
          0.99e-4F, std::numeric_limits<float>::quiet_NaN()}) {
      EXPECT_EQ(block_scale(amax, format).stored, least.stored) << amax;
      EXPECT_EQ(block_scale(amax, format).inverse, least.inverse) << amax;
    }
  }
}

TEST(BlockScale, OfInfinityIsInfiniteAndTakesAllValuesToZero) {
  for (const ScaleFormat format :
       {ScaleFormat::kFloat32, ScaleFormat::kPowerOfTwo, ScaleFormat::kPackedUE8M0}) {
    EXPECT_EQ(block_scale(kInfinity, format).stored, kInfinity);
    EXPECT_EQ(block_scale(kInfinity, format).inverse, 0.0F);
  }
  EXPECT_EQ(ue8m0_byte(kInfinity), 255U);
}

TEST(BlockScale, OfTheLargestNumberIsFinite) {
  EXPECT_TRUE(std::isfinite(block_scale(kLargest, ScaleFormat::kFloat32).stored));
  EXPECT_TRUE(std::isfinite(block_scale(kLargest, ScaleFormat::kPowerOfTwo).stored));
  EXPECT_GT(block_scale(kLargest, ScaleFormat::kPowerOfTwo).inverse, 0.0F);
}

TEST(BlockScale, ThatIsAPowerOfTwoIsTheLeastThatFits) {
  for (const float amax : {1e-4F, 0.5F, 223.0F, 225.0F, 447.0F, 449.0F, 895.0F, 1e30F}) {
    const BlockScale scale = block_scale(amax, ScaleFormat::kPowerOfTwo);
    int exponent = 0;
    EXPECT_EQ(std::frexp(scale.stored, &exponent), 0.5F) << amax;
    EXPECT_EQ(scale.stored * scale.inverse, 1.0F) << amax;
    EXPECT_LE(amax / scale.stored, kE4M3Max) << amax;
    EXPECT_GT(amax / scale.stored, kE4M3Max / 2) << amax;
  }
}

TEST(BlockScale, PackedIsTheBiasedExponent) {
  for (const float amax : {1e-4F, 1.0F, 449.0F, 1e30F}) {
    const BlockScale scale = block_scale(amax, ScaleFormat::kPackedUE8M0);
    EXPECT_EQ(scale.stored, block_scale(amax, ScaleFormat::kPowerOfTwo).stored);
    EXPECT_EQ(float_of_bits(ue8m0_byte(scale.stored) << 23), scale.stored);
  }
  EXPECT_EQ(ue8m0_byte(1.0F), 127U);
  EXPECT_EQ(ue8m0_byte(0.25F), 125U);
}

TEST(FloatBits, SurviveBothWays) {
  for (const float value : {0.0F, -0.0F, 1.5F, kLargest, kInfinity}) {
    EXPECT_EQ(float_of_bits(bits_of_float(value)), value);
  }
  EXPECT_EQ(bits_of_float(1.0F), 0x3f800000U);
  EXPECT_EQ(bits_of_float(-0.0F), 0x80000000U);
}

}  // namespace
}  // namespace moelink
