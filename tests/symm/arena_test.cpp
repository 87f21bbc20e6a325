// The arena's contract: offers, settled parts, user blocks, statistics.
#include "symm/arena.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "conformance/texts.hpp"
#include "moelink/errors.hpp"
#include "symm/fake_memory.hpp"

namespace moelink {
namespace {

using test::FakeMemory;
using test::mentions;

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kBegin = 1000;  // not aligned on purpose: the arena starts at 1024
constexpr std::size_t kStart = 1024;
constexpr std::size_t kCapacity = std::size_t{16} << 20;
constexpr std::size_t kKiB = 1024;

class ArenaTest : public ::testing::Test {
 protected:
  std::shared_ptr<void> settle(const ArenaSpan& chosen, std::size_t bytes) {
    const std::size_t parts[] = {bytes};
    return arena_->settle(chosen, parts).front();
  }
  std::size_t offset_of(const std::shared_ptr<void>& block) const {
    return arena_->offset_of(block.get());
  }

  std::size_t available_ = kUnlimited;
  std::shared_ptr<FakeMemory> memory_ = std::make_shared<FakeMemory>(kBegin + kCapacity);
  std::shared_ptr<Arena> arena_ =
      Arena::make(memory_, kBegin, kCapacity, [this] { return available_; });
};

TEST(ArenaSizeClass, GivesHeadroomButLittleSlack) {
  for (std::size_t bytes = 64 * kKiB; bytes < (std::size_t{1} << 40); bytes += bytes / 7 + 1) {
    const std::size_t kept = arena_size_class(bytes);
    EXPECT_EQ(kept % kArenaAlignment, 0U);
    EXPECT_GE(kept, bytes + bytes / 16) << bytes;
    EXPECT_LE(kept, bytes + bytes / 8 + bytes / 64) << bytes;
  }
}

TEST(ArenaSizeClass, OfNothingIsNothingAndOfEverythingDoesNotOverflow) {
  EXPECT_EQ(arena_size_class(0), 0U);
  EXPECT_EQ(arena_size_class(1), kArenaAlignment);
  EXPECT_GT(arena_size_class(kUnlimited), kUnlimited / 2);
}

TEST_F(ArenaTest, StartsEmptyWithItsAlignedCapacity) {
  const ArenaStatistics statistics = arena_->statistics();
  EXPECT_EQ(statistics.live_bytes, 0U);
  EXPECT_EQ(statistics.high_water_bytes, 0U);
  EXPECT_EQ(statistics.capacity_bytes, (kBegin + kCapacity) / 256 * 256 - kStart);
}

TEST_F(ArenaTest, AllocatesFromTheLowestPlaceAligned) {
  const auto first = arena_->allocate(1000);
  const auto second = arena_->allocate(1);
  EXPECT_EQ(offset_of(first), kStart);
  EXPECT_EQ(offset_of(second), kStart + arena_size_class(1000));
}

TEST_F(ArenaTest, BlockIsReusedOnceItsLastOwnerHasGone) {
  auto first = arena_->allocate(1000);
  auto copy = first;
  const auto barrier = arena_->allocate(1000);
  first.reset();
  EXPECT_NE(offset_of(arena_->allocate(1000)), kStart);
  copy.reset();
  EXPECT_EQ(offset_of(arena_->allocate(1000)), kStart);
}

TEST_F(ArenaTest, FailureSaysHowMuchIsNeededAndFree) {
  const auto most = arena_->allocate(kCapacity - 512 * kKiB);
  try {
    arena_->allocate(2'000'000);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    const std::size_t free = arena_->make_offer(0).largest.bytes;
    EXPECT_TRUE(mentions(
        error.what(), {"2000000 bytes are needed", "largest free place has " + std::to_string(free),
                       "MOELINK_MAX_SYMMETRIC_BYTES"}));
  }
}

TEST_F(ArenaTest, MoreThanTheCapacityIsRefusedAndAllOfItIsNot) {
  const std::size_t capacity = arena_->statistics().capacity_bytes;
  EXPECT_THROW(arena_->allocate(capacity + 1), Error);
  EXPECT_THROW(arena_->allocate(kUnlimited), Error);
  EXPECT_NE(arena_->allocate(capacity), nullptr);
}

TEST_F(ArenaTest, ZeroBytesHaveAnOwnerAndTakeNothing) {
  const auto nothing = arena_->allocate(0);
  EXPECT_NE(nothing, nullptr);
  EXPECT_NE(nothing.get(), nullptr);
  EXPECT_EQ(arena_->statistics().live_bytes, 0U);
}

TEST_F(ArenaTest, FirstOfferIsTheWholeArenaAndExpectsNothing) {
  const Arena::Offer offer = arena_->make_offer(0);
  EXPECT_EQ(offer.expected.bytes, 0U);
  EXPECT_EQ(offer.largest.offset, kStart);
  EXPECT_EQ(offer.largest.bytes, arena_->statistics().capacity_bytes);
}

TEST_F(ArenaTest, ExpectedIsTheLowestHoleThatIsLargeEnough) {
  auto small = arena_->allocate(4 * kKiB);
  const auto barrier_0 = arena_->allocate(256);
  auto fitting = arena_->allocate(64 * kKiB);
  const auto barrier_1 = arena_->allocate(256);
  const std::size_t hole = offset_of(fitting);
  small.reset();
  fitting.reset();
  const Arena::Offer offer = arena_->make_offer(64 * kKiB);
  EXPECT_EQ(offer.expected.offset, hole);
  EXPECT_GE(offer.expected.bytes, 64 * kKiB);
  EXPECT_GT(offer.largest.offset, offset_of(barrier_1));
}

TEST_F(ArenaTest, ExpectedIsEmptyWhenNoHoleIsLargeEnough) {
  const Arena::Offer offer = arena_->make_offer(2 * kCapacity);
  EXPECT_EQ(offer.expected.bytes, 0U);
  EXPECT_GT(offer.largest.bytes, 0U);
}

TEST_F(ArenaTest, ChooseTakesExpectedThenLargestThenNothing) {
  const Arena::Offer offer{{256, 1024}, {4096, 8192}};
  EXPECT_EQ(Arena::choose(offer, 0).offset, 256U);
  EXPECT_EQ(Arena::choose(offer, 1024).offset, 256U);
  EXPECT_EQ(Arena::choose(offer, 1025).offset, 4096U);
  EXPECT_EQ(Arena::choose(offer, 8192).bytes, 8192U);
  EXPECT_EQ(Arena::choose(offer, 8193).bytes, 0U);
}

TEST_F(ArenaTest, OfferIsHeldUntilItEnds) {
  auto below = arena_->allocate(64 * kKiB);
  const auto barrier = arena_->allocate(256);
  below.reset();
  const Arena::Offer offer = arena_->make_offer(60 * kKiB);
  ASSERT_EQ(offer.expected.offset, kStart);
  EXPECT_THROW(arena_->allocate(60 * kKiB), Error);
  arena_->abandon();
  EXPECT_EQ(offset_of(arena_->allocate(60 * kKiB)), kStart);
}

TEST_F(ArenaTest, OfferCanFollowAnAbandonedOne) {
  arena_->make_offer(1000);
  arena_->abandon();
  arena_->abandon();
  EXPECT_EQ(arena_->make_offer(1000).expected.offset, kStart);
}

TEST_F(ArenaTest, SettledPartsFollowOneAnotherAndAreFreedOneByOne) {
  const Arena::Offer offer = arena_->make_offer(0);
  const std::size_t parts[] = {512, 0, 1024, 256, 0};
  auto owners = arena_->settle(Arena::choose(offer, 1792), parts);
  ASSERT_EQ(owners.size(), 5U);
  const std::size_t offsets[] = {0, 512, 512, 1536, 1792};
  for (std::size_t i = 0; i < owners.size(); ++i) {
    ASSERT_NE(owners[i], nullptr);
    EXPECT_EQ(offset_of(owners[i]), kStart + offsets[i]) << i;
  }
  EXPECT_EQ(arena_->statistics().live_bytes, arena_size_class(1792));
  owners[2].reset();
  EXPECT_EQ(arena_->statistics().live_bytes, arena_size_class(1792) - 1024);
  EXPECT_EQ(offset_of(arena_->allocate(900)), kStart + 512);
  owners.clear();
  EXPECT_EQ(arena_->statistics().live_bytes, 0U);
}

TEST_F(ArenaTest, SettlingFreesWhatWasNotChosen) {
  auto below = arena_->allocate(64 * kKiB);
  const auto barrier = arena_->allocate(256);
  below.reset();
  const Arena::Offer offer = arena_->make_offer(60 * kKiB);
  const auto block = settle(Arena::choose(offer, kCapacity / 2), kCapacity / 2);
  EXPECT_EQ(offset_of(block), offer.largest.offset);
  EXPECT_EQ(offset_of(arena_->allocate(60 * kKiB)), kStart);
}

TEST_F(ArenaTest, NeedOfTheWholeOfferIsSettledWithoutSlack) {
  const Arena::Offer offer = arena_->make_offer(0);
  const auto block = settle(offer.largest, offer.largest.bytes);
  EXPECT_EQ(arena_->statistics().live_bytes, offer.largest.bytes);
}

TEST_F(ArenaTest, NeedOfNothingIsSettledInAFullArena) {
  const auto all = arena_->allocate(arena_->statistics().capacity_bytes);
  const Arena::Offer offer = arena_->make_offer(1000);
  EXPECT_EQ(offer.largest.bytes, 0U);
  const std::size_t parts[] = {0, 0};
  const auto owners = arena_->settle(Arena::choose(offer, 0), parts);
  EXPECT_NE(owners[0], nullptr);
  EXPECT_NE(owners[1], nullptr);
}

TEST_F(ArenaTest, ContainsOnlyWhatLiesInOneLiveBlock) {
  auto block = arena_->allocate(4096);
  std::byte* const start = static_cast<std::byte*>(block.get());
  EXPECT_TRUE(arena_->contains(start, 4096));
  EXPECT_TRUE(arena_->contains(start + 4000, 96));
  EXPECT_FALSE(arena_->contains(start, arena_size_class(4096) + 1));
  EXPECT_FALSE(arena_->contains(start - 1, 1));
  EXPECT_FALSE(arena_->contains(&available_, sizeof(available_)));
  EXPECT_FALSE(arena_->contains(start, kUnlimited));
  block.reset();
  EXPECT_FALSE(arena_->contains(start, 1));
}

TEST_F(ArenaTest, BlocksKeepArenaAndMemoryAlive) {
  const std::weak_ptr<FakeMemory> memory = memory_;
  auto block = arena_->allocate(4096);
  auto nothing = arena_->allocate(0);
  arena_.reset();
  memory_.reset();
  static_cast<char*>(block.get())[4095] = 1;
  block.reset();
  EXPECT_FALSE(memory.expired());
  nothing.reset();
  EXPECT_TRUE(memory.expired());
}

TEST_F(ArenaTest, StatisticsRememberPeakAndHighWater) {
  auto first = arena_->allocate(1 << 20);
  auto second = arena_->allocate(1 << 20);
  const std::size_t both = 2 * arena_size_class(1 << 20);
  first.reset();
  second.reset();
  const ArenaStatistics statistics = arena_->statistics();
  EXPECT_EQ(statistics.live_bytes, 0U);
  EXPECT_EQ(statistics.peak_live_bytes, both);
  EXPECT_EQ(statistics.high_water_bytes, both);
}

TEST_F(ArenaTest, DiscardGivesBackWholePagesAboveTheHighestBlock) {
  const auto low = arena_->allocate(1000);
  auto high = arena_->allocate(1 << 20);
  high.reset();
  arena_->discard_unused();
  ASSERT_EQ(memory_->discarded.size(), 1U);
  const auto [offset, bytes] = memory_->discarded.front();
  EXPECT_EQ(offset, 4096U);
  EXPECT_EQ(offset + bytes, (kBegin + kCapacity) / 4096 * 4096);
  EXPECT_EQ(arena_->statistics().high_water_bytes, arena_size_class(1000));
}

TEST_F(ArenaTest, DiscardSparesAnOpenOffer) {
  arena_->make_offer(1000);
  arena_->discard_unused();
  EXPECT_TRUE(memory_->discarded.empty());
}

TEST_F(ArenaTest, OffersEndWhereTheMachinesMemoryEnds) {
  available_ = (1 << 20) + 100;
  const Arena::Offer offer = arena_->make_offer(0);
  EXPECT_EQ(offer.largest.bytes, std::size_t{1} << 20);
}

TEST_F(ArenaTest, PagesThatWereInUseBeforeDoNotCountAsNew) {
  arena_->allocate(4 << 20).reset();
  available_ = 0;
  arena_->discard_unused();  // forgets the high-water mark, and what was available
  EXPECT_EQ(arena_->make_offer(0).largest.bytes, 0U);
  arena_->abandon();
  available_ = 1 << 20;
  EXPECT_NE(arena_->allocate(1 << 20), nullptr);  // asks again before it fails
  available_ = 0;
  EXPECT_THROW(arena_->allocate(2 << 20), Error);
  EXPECT_NE(arena_->allocate(1 << 20), nullptr);
}

}  // namespace
}  // namespace moelink
