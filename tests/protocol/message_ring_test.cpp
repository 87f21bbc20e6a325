// Rings of messages: where they lie, which slot and which counter a message has.
#include "protocol/message_ring.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace moelink {
namespace {

constexpr MessageChannel kChannels[] = {MessageChannel::kControl, MessageChannel::kTokens,
                                        MessageChannel::kLowLatency};

MessageArea area_of(const Topology& topology) {
  MessageArea area{.topology = topology};
  area.channels[0] = {.peers = MessagePeers::kAll,
                      .ring = {.num_slots = 16, .slot_bytes = 192, .num_to_ack = 4}};
  area.channels[1] = {.peers = MessagePeers::kRail,
                      .ring = {.num_slots = 4, .slot_bytes = 1024, .num_to_ack = 1}};
  area.channels[2] = {.peers = MessagePeers::kAll,
                      .ring = {.num_slots = 3, .slot_bytes = 128, .num_to_ack = 2}};
  return area;
}

bool are_peers(const MessageArea& area, MessageChannel channel, Rank one, Rank other) {
  const Topology& topology = area.topology;
  if (topology.node_of(one) == topology.node_of(other)) return false;
  return area.of(channel).peers == MessagePeers::kAll ||
         topology.local_rank_of(one) == topology.local_rank_of(other);
}

class MessageRings : public ::testing::TestWithParam<Topology> {};

TEST_P(MessageRings, OfOneRankFillItsAreaWithoutOverlaps) {
  const MessageArea area = area_of(GetParam());
  for (Rank owner(0); owner.value() < GetParam().num_ranks; owner = owner.next()) {
    std::vector<std::pair<std::size_t, std::size_t>> spans;  // begin, end
    for (const MessageChannel channel : kChannels) {
      const std::size_t bytes = area.ring(channel).ring_bytes();
      for (Rank peer(0); peer.value() < GetParam().num_ranks; peer = peer.next()) {
        if (!are_peers(area, channel, owner, peer)) continue;
        const std::size_t sent = area.sent_offset(owner, peer, channel);
        const std::size_t received = area.received_offset(owner, peer, channel);
        spans.emplace_back(sent, sent + bytes);
        spans.emplace_back(received, received + bytes);
      }
    }
    std::ranges::sort(spans);
    std::size_t end = 0;
    for (const auto& span : spans) {
      EXPECT_EQ(span.first, end);
      EXPECT_EQ(span.first % alignof(MessageHeader), 0U);
      end = span.second;
    }
    EXPECT_EQ(end, area.total_bytes());
  }
}

INSTANTIATE_TEST_SUITE_P(Topologies, MessageRings,
                         ::testing::Values(Topology{2, 2}, Topology{4, 2}, Topology{6, 3},
                                           Topology{4, 4}, Topology{5, 1}),
                         [](const auto& instance) {
                           return std::to_string(instance.param.num_ranks) + "_ranks_on_" +
                                  std::to_string(instance.param.num_nodes) + "_nodes";
                         });

TEST(MessageRing, SlotsFollowOneAnotherAndComeAgain) {
  const RingShape ring{.num_slots = 3, .slot_bytes = 256, .num_to_ack = 1};
  EXPECT_EQ(ring.capacity(), 192U);
  for (std::uint64_t number = 1; number < 10; ++number) {
    EXPECT_LE(ring.slot_offset(number) + ring.slot_bytes, ring.ring_bytes());
    EXPECT_EQ(ring.slot_offset(number), ring.slot_offset(number + 3));
    EXPECT_NE(ring.slot_offset(number), ring.slot_offset(number + 1));
    EXPECT_NE(ring.slot_offset(number), ring.slot_offset(number + 2));
  }
}

TEST(MessageRing, CountersOfChannelsDifferAndExist) {
  std::vector<std::uint32_t> counters;
  for (const MessageChannel channel : kChannels) {
    counters.push_back(message_key(channel, 5).counter);
    counters.push_back(release_key(channel).counter);
    EXPECT_EQ(message_key(channel, 5).counter, message_key(channel, 6).counter);
  }
  std::ranges::sort(counters);
  EXPECT_EQ(std::ranges::adjacent_find(counters), counters.end());
  EXPECT_LT(counters.back(), num_message_counters());
}

// With as many messages on their way as there may be at most, in the order in which it is hardest
// to tell them apart: the latest arrives first.
TEST(MessageRing, CountSaysWhichMessagesAreHereWhateverTheirOrder) {
  std::array<std::uint64_t, kNumMessageLanes> counts{};
  const auto lane = [](std::uint64_t number) { return number % kNumMessageLanes; };
  const auto is_here = [&](std::uint64_t number) {
    return counts[lane(number)] >= message_count(number);
  };
  for (std::uint64_t first = 1; first < 100; first += kNumMessageLanes) {
    for (std::uint64_t i = kNumMessageLanes; i-- > 0;) {
      EXPECT_FALSE(is_here(first + i));
      ++counts[lane(first + i)];
      EXPECT_TRUE(is_here(first + i));
      for (std::uint64_t missing = 0; missing < i; ++missing)
        EXPECT_FALSE(is_here(first + missing));
    }
  }
}

}  // namespace
}  // namespace moelink
