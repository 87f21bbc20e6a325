// One lane of commands: order, wrap, credits.
#include "proxy/lane.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "proxy/ring_memory.hpp"

namespace moelink {
namespace {

constexpr RingLayout kLayout{.num_lanes = 2, .num_slots = 4};

struct Ends {
  RingMemory memory{kLayout.total_bytes()};
  LaneWriter writer{LaneView(memory.data(), kLayout, 1)};
  LaneReader reader{LaneView(memory.data(), kLayout, 1)};
};

ProxyCommand command_with(std::uint64_t bytes) {
  return {.source_offset = 1,
          .target_offset = 2,
          .bytes = bytes,
          .epoch = 3,
          .counter = 4,
          .source_region = 5,
          .target_region = 6,
          .kind = CommandKind::kCountedPut};
}

TEST(Lane, IsEmptyAtFirstAndCarriesEveryField) {
  Ends ends;
  EXPECT_EQ(ends.reader.front(), nullptr);
  ASSERT_TRUE(ends.writer.try_push(command_with(9)));
  const ProxyCommand* const seen = ends.reader.front();
  ASSERT_NE(seen, nullptr);
  EXPECT_EQ(seen->source_offset, 1U);
  EXPECT_EQ(seen->target_offset, 2U);
  EXPECT_EQ(seen->bytes, 9U);
  EXPECT_EQ(seen->epoch, 3U);
  EXPECT_EQ(seen->counter, 4U);
  EXPECT_EQ(seen->source_region, 5);
  EXPECT_EQ(seen->target_region, 6);
  EXPECT_EQ(seen->kind, CommandKind::kCountedPut);
  ends.reader.pop();
  EXPECT_EQ(ends.reader.front(), nullptr);
}

TEST(Lane, FullLaneTakesNoMoreUntilASlotIsFree) {
  Ends ends;
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(ends.writer.try_push(command_with(i)));
  EXPECT_FALSE(ends.writer.try_push(command_with(99)));
  EXPECT_EQ(ends.writer.num_pushed(), 4U);
  ends.reader.pop();
  EXPECT_TRUE(ends.writer.try_push(command_with(4)));
  EXPECT_FALSE(ends.writer.try_push(command_with(99)));
  EXPECT_EQ(ends.reader.front()->bytes, 1U);
}

TEST(Lane, KeepsItsOrderOverManyWraps) {
  Ends ends;
  std::uint64_t num_seen = 0;
  for (std::uint64_t i = 0; i < 1001; ++i) {
    ASSERT_TRUE(ends.writer.try_push(command_with(i)));
    if (i % 3 != 2) continue;
    for (; num_seen <= i; ++num_seen) {
      ASSERT_NE(ends.reader.front(), nullptr);
      EXPECT_EQ(ends.reader.front()->bytes, num_seen);
      ends.reader.pop();
    }
    EXPECT_EQ(ends.reader.front(), nullptr);
  }
}

TEST(Lane, IsSafeBetweenTwoThreads) {
  Ends ends;
  constexpr std::uint64_t kNumCommands = 20000;
  std::thread producer([&] {
    for (std::uint64_t i = 0; i < kNumCommands;) {
      if (ends.writer.try_push(command_with(i))) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  bool in_order = true;
  for (std::uint64_t i = 0; i < kNumCommands;) {
    const ProxyCommand* const command = ends.reader.front();
    if (command == nullptr) {
      std::this_thread::yield();
      continue;
    }
    in_order &= command->bytes == i && command->target_region == 6;
    ends.reader.pop();
    ++i;
  }
  producer.join();
  EXPECT_TRUE(in_order);
}

TEST(Lane, TellsTheProducerWhatIsComplete) {
  Ends ends;
  EXPECT_EQ(ends.writer.num_completed(), 0U);
  ends.reader.publish_completed(7);
  EXPECT_EQ(ends.writer.num_completed(), 7U);
  const LaneView view(ends.memory.data(), kLayout, 1);
  EXPECT_EQ(view.progress().failed, 0U);
  ends.reader.publish_failure();
  EXPECT_EQ(view.progress().failed, 1U);
}

}  // namespace
}  // namespace moelink
