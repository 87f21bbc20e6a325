// Pieces of a put: they cover it and are never too many or too small.
#include "transport/stripe_plan.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

TEST(StripePlan, CoversEveryByteOnce) {
  for (const std::size_t num_nics : {1U, 2U, 3U, 4U, 8U}) {
    for (const std::size_t bytes : {0U, 1U, 255U, 256U, 5000U, 65536U, 1000001U}) {
      const StripePlan plan = plan_stripes(bytes, {.num_nics = num_nics});
      std::size_t end = 0;
      for (std::size_t i = 0; i < plan.num_pieces(); ++i) {
        EXPECT_EQ(plan.piece(i).offset, end);
        EXPECT_EQ(plan.piece(i).offset % kStripeAlignment, 0U);
        end += plan.piece(i).bytes;
      }
      EXPECT_EQ(end, bytes) << num_nics;
    }
  }
}

TEST(StripePlan, UsesPowersOfTwoOfTheCards) {
  const auto num_pieces = [](std::size_t num_nics) {
    return plan_stripes(1 << 20, {.num_nics = num_nics}).num_pieces();
  };
  EXPECT_EQ(num_pieces(1), 1U);
  EXPECT_EQ(num_pieces(2), 2U);
  EXPECT_EQ(num_pieces(3), 2U);
  EXPECT_EQ(num_pieces(4), 4U);
  EXPECT_EQ(num_pieces(100), kUnitsPerPut);
}

TEST(StripePlan, DoesNotCutPiecesBelowTheLeastSize) {
  const StripeLimits limits{.num_nics = 4, .min_piece_bytes = 1000};
  EXPECT_EQ(plan_stripes(1999, limits).num_pieces(), 1U);
  EXPECT_EQ(plan_stripes(2000, limits).num_pieces(), 2U);
  EXPECT_EQ(plan_stripes(4000, limits).num_pieces(), 4U);
}

TEST(StripePlan, CutsAPieceOnlyAsFarAsItCanStillBeCounted) {
  StripeLimits limits{.num_nics = 8, .log2_pieces_so_far = 2};
  EXPECT_EQ(plan_stripes(1 << 20, limits).num_pieces(), 2U);
  limits.log2_pieces_so_far = kMaxLog2Pieces;
  EXPECT_EQ(plan_stripes(1 << 20, limits).num_pieces(), 1U);
}

}  // namespace
}  // namespace moelink
