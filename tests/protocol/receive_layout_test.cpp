// Places of the tensors inside a receive block.
#include "protocol/receive_layout.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

constexpr ReceiveShape kFull{.layout = Layout::kCompact,
                             .row_bytes = 7168,
                             .scale_bytes = 224,
                             .index_bytes = 8,
                             .num_topk = 6,
                             .weight_bytes = 4};

TEST(ReceiveLayout, PartsFollowOneAnotherAlignedAndLargeEnough) {
  constexpr ReceiveLayout kLayout = ReceiveLayout::make(kFull, 13, 13);
  std::size_t end = 0;
  for (std::size_t i = 0; i < kNumReceiveParts; ++i) {
    const auto part = static_cast<ReceivePart>(i);
    EXPECT_EQ(kLayout.offset(part), end) << i;
    EXPECT_EQ(kLayout.offset(part) % kPartAlignment, 0U) << i;
    end += kLayout.bytes(part);
  }
  EXPECT_EQ(kLayout.total_bytes(), end);
  EXPECT_GE(kLayout.bytes(ReceivePart::kPayload), 13U * 7168);
  EXPECT_GE(kLayout.bytes(ReceivePart::kScales), 13U * 224);
}

TEST(ReceiveLayout, CompactHoldsTopkPerRowAndSourceTokens) {
  constexpr ReceiveLayout kLayout = ReceiveLayout::make(kFull, 100, 100);
  EXPECT_EQ(kLayout.bytes(ReceivePart::kTopkIdx),
            align_up(std::size_t{100 * 6 * 8}, kPartAlignment));
  EXPECT_EQ(kLayout.bytes(ReceivePart::kTopkWeights),
            align_up(std::size_t{100 * 6 * 4}, kPartAlignment));
  EXPECT_EQ(kLayout.bytes(ReceivePart::kSourceToken),
            align_up(std::size_t{100 * 4}, kPartAlignment));
  EXPECT_EQ(kLayout.bytes(ReceivePart::kExpertRow), 0U);
}

TEST(ReceiveLayout, ExpertMajorHoldsOneWeightPerRowAndRowsOfEachToken) {
  ReceiveShape shape = kFull;
  shape.layout = Layout::kExpertMajor;
  const ReceiveLayout layout = ReceiveLayout::make(shape, 256, 90);
  EXPECT_EQ(layout.bytes(ReceivePart::kPayload), 256U * 7168);
  EXPECT_EQ(layout.bytes(ReceivePart::kTopkIdx), 0U);
  EXPECT_EQ(layout.bytes(ReceivePart::kTopkWeights), 256U * 4);
  EXPECT_EQ(layout.bytes(ReceivePart::kSourceToken), align_up(std::size_t{90 * 4}, kPartAlignment));
  EXPECT_EQ(layout.bytes(ReceivePart::kExpertRow),
            align_up(std::size_t{90 * 6 * 4}, kPartAlignment));
}

TEST(ReceiveLayout, ReusedRowsBringNoDescriptionsOfRows) {
  ReceiveShape shape = kFull;
  shape.origin = RowOrigin::kReused;
  for (const Layout kind : {Layout::kCompact, Layout::kExpertMajor}) {
    shape.layout = kind;
    const ReceiveLayout layout = ReceiveLayout::make(shape, 64, 64);
    EXPECT_EQ(layout.bytes(ReceivePart::kSourceToken), 0U);
    EXPECT_EQ(layout.bytes(ReceivePart::kExpertRow), 0U);
    EXPECT_GT(layout.bytes(ReceivePart::kPayload), 0U);
  }
}

TEST(ReceiveLayout, AbsentTensorsAndZeroRowsTakeNoBytes) {
  constexpr ReceiveShape kPlain{.row_bytes = 64};
  EXPECT_EQ(ReceiveLayout::make(kPlain, 10, 10).bytes(ReceivePart::kScales), 0U);
  EXPECT_EQ(ReceiveLayout::make(kPlain, 10, 10).bytes(ReceivePart::kTopkIdx), 0U);
  EXPECT_EQ(ReceiveLayout::make(kFull, 0, 0).total_bytes(), 0U);
}

TEST(ReceiveLayout, SizesBeyond32BitsAreExact) {
  constexpr ReceiveShape kWide{.row_bytes = 1U << 20};
  constexpr ReceiveLayout kLayout = ReceiveLayout::make(kWide, 1 << 20, 0);
  EXPECT_EQ(kLayout.total_bytes(), std::size_t{1} << 40);
}

}  // namespace
}  // namespace moelink
