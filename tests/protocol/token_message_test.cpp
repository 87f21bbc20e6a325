// Messages that carry tokens between nodes: parts that do not overlap, and how many tokens fit.
#include "protocol/token_message.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

ReceiveShape shape_of(RowOrigin origin) {
  return {.row_bytes = 48,
          .scale_bytes = 12,
          .index_bytes = 8,
          .num_topk = 5,
          .weight_bytes = 4,
          .origin = origin};
}

TEST(TokenMessage, EntryOfANewDispatchHasNumberDestinationsExpertsAndWeights) {
  const TokenMessage message = TokenMessage::make(shape_of(RowOrigin::kSent), 5, 33);
  EXPECT_EQ(message.num_masks, 2U);
  EXPECT_EQ(message.masks_offset(), 4U);
  EXPECT_EQ(message.ids_offset(), 12U);
  EXPECT_EQ(message.weights_offset(), 32U);
  EXPECT_EQ(message.entry_bytes(), 52U);
  EXPECT_EQ(TokenMessage::make(shape_of(RowOrigin::kSent), 5, 32).num_masks, 1U);
}

TEST(TokenMessage, EntryOfACachedDispatchHasWeightsAlone) {
  const TokenMessage message = TokenMessage::make(shape_of(RowOrigin::kReused), 5, 33);
  EXPECT_EQ(message.weights_offset(), 0U);
  EXPECT_EQ(message.entry_bytes(), 20U);
}

TEST(TokenMessage, EntryWithoutExpertsAndWeightsHasNumberAndDestinations) {
  const TokenMessage message = TokenMessage::make({.row_bytes = 16}, 0, 2);
  EXPECT_EQ(message.entry_bytes(), 8U);
}

TEST(TokenMessage, PartsFollowOneAnotherAndRowsAreAligned) {
  for (const RowOrigin origin : {RowOrigin::kSent, RowOrigin::kReused}) {
    const TokenMessage message = TokenMessage::make(shape_of(origin), 5, 8);
    for (const std::size_t num_tokens : {0U, 1U, 2U, 7U, 1000U}) {
      EXPECT_EQ(message.entry_offset(0), sizeof(TokenMessageHeader));
      EXPECT_GE(message.rows_offset(num_tokens), message.entry_offset(num_tokens));
      EXPECT_EQ(message.rows_offset(num_tokens) % kRowGranuleBytes, 0U);
      EXPECT_EQ(message.scales_offset(num_tokens),
                message.rows_offset(num_tokens) + num_tokens * 48);
      EXPECT_EQ(message.total_bytes(num_tokens),
                message.scales_offset(num_tokens) + num_tokens * 12);
    }
  }
}

TEST(TokenMessage, CapacityFitsAndWastesLessThanATokenAndItsAlignment) {
  const TokenMessage message = TokenMessage::make(shape_of(RowOrigin::kSent), 5, 8);
  const std::size_t token = message.entry_bytes() + 48 + 12;
  for (std::size_t bytes = 0; bytes < 2000; ++bytes) {
    const std::size_t num_tokens = message.capacity(bytes);
    if (num_tokens > 0) {
      EXPECT_LE(message.total_bytes(num_tokens), bytes);
    }
    EXPECT_GT(message.total_bytes(num_tokens) + token + kRowGranuleBytes, bytes);
  }
  EXPECT_EQ(message.capacity(0), 0U);
  EXPECT_EQ(message.capacity(sizeof(TokenMessageHeader) + kRowGranuleBytes + token - 1), 0U);
  EXPECT_EQ(message.capacity(sizeof(TokenMessageHeader) + kRowGranuleBytes + token), 1U);
}

TEST(PartialMessage, HasRowsThenWeightsAndNothingElse) {
  const PartialMessage message{.row_bytes = 48, .num_weights = 3};
  EXPECT_EQ(message.weights_offset(7), 7U * 48);
  EXPECT_EQ(message.total_bytes(7), 7U * 48 + 7U * 3 * sizeof(float));
  EXPECT_EQ(message.capacity(message.total_bytes(7)), 7U);
  EXPECT_EQ(message.capacity(message.total_bytes(7) - 1), 6U);
  EXPECT_EQ(message.capacity(59), 0U);
  EXPECT_EQ((PartialMessage{.row_bytes = 48}).total_bytes(2), 96U);
}

}  // namespace
}  // namespace moelink
