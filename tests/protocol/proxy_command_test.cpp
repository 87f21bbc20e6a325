// Rings of commands: their byte map and their credits.
#include "protocol/proxy_command.hpp"

#include <gtest/gtest.h>

#include <set>

namespace moelink {
namespace {

TEST(RingLayout, LanesAndSlotsFillTheMemoryWithoutOverlap) {
  const RingLayout layout{.num_lanes = 3, .num_slots = 8};
  std::set<std::size_t> offsets;
  for (std::uint32_t lane = 0; lane < 3; ++lane) {
    offsets.insert(layout.progress_offset(lane));
    for (std::uint64_t position = 0; position < 8; ++position) {
      offsets.insert(layout.slot_offset(lane, position));
    }
  }
  EXPECT_EQ(offsets.size() * sizeof(ProxyCommand), layout.total_bytes());
  EXPECT_EQ(*offsets.rbegin() + sizeof(ProxyCommand), layout.total_bytes());
}

TEST(RingLayout, SlotsRepeatAndTurnsDoNot) {
  const RingLayout layout{.num_lanes = 1, .num_slots = 4};
  EXPECT_EQ(layout.slot_offset(0, 1), layout.slot_offset(0, 5));
  EXPECT_NE(turn_of(1), turn_of(5));
  EXPECT_NE(turn_of(0), 0U);  // what fresh memory holds
}

TEST(RingLayout, CreditsAreTheFreeSlots) {
  const RingLayout layout{.num_lanes = 1, .num_slots = 4};
  EXPECT_EQ(layout.num_credits(0, 0), 4U);
  EXPECT_EQ(layout.num_credits(7, 5), 2U);
  EXPECT_EQ(layout.num_credits(9, 5), 0U);
}

}  // namespace
}  // namespace moelink
