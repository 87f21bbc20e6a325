// Control messages: the largest one must fit wherever any of them goes.
#include "protocol/control_message.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

TEST(ControlMessage, LongestContentHasRoomForEveryKind) {
  for (const int num_ranks : {2, 8, 1024}) {
    for (const int max_num_experts : {0, 64, 4096}) {
      const std::size_t room =
          max_control_message_bytes(num_ranks, max_num_experts) - sizeof(ControlMessage);
      EXPECT_GE(room, sizeof(FaultRecord));
      EXPECT_GE(room, static_cast<std::size_t>(num_ranks));  // masks
      const auto counts = static_cast<std::size_t>(num_ranks + max_num_experts);
      EXPECT_GE(room, sizeof(ExchangeBlock) + counts * sizeof(std::int32_t));
    }
  }
}

TEST(ControlMessage, ExchangeFitsTheBlockThatTheReceiverKeepsForIt) {
  const ControlLayout layout{8, 64};
  const std::size_t stride =
      layout.exchange_offset(Epoch(1), Rank(1)) - layout.exchange_offset(Epoch(1), Rank(0));
  EXPECT_GE(stride, sizeof(ExchangeBlock) + CountMatrix::row_length(8, 64) * sizeof(std::int32_t));
}

}  // namespace
}  // namespace moelink
