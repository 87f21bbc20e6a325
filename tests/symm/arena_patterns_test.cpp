// The arena under long sequences: steady use does not creep, random use agrees with a simple model.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "moelink/errors.hpp"
#include "symm/arena.hpp"
#include "symm/fake_memory.hpp"

namespace moelink {
namespace {

using test::FakeMemory;

using Random = std::mt19937_64;

std::shared_ptr<Arena> make_arena(std::size_t capacity) {
  return Arena::make(std::make_shared<FakeMemory>(capacity), 0, capacity,
                     [] { return std::numeric_limits<std::size_t>::max(); });
}

std::size_t number_up_to(Random& random, std::size_t most) {
  return std::uniform_int_distribution<std::size_t>(0, most)(random);
}

// Sizes of some tensors that together need about `total`.
std::vector<std::size_t> split_into_parts(std::size_t total) {
  const std::size_t large = total * 9 / 10 / kArenaAlignment * kArenaAlignment;
  const std::size_t small = (total - large) / 2 / kArenaAlignment * kArenaAlignment;
  return {large, small, 0, small};
}

std::size_t sum_of(const std::vector<std::size_t>& parts) {
  std::size_t sum = 0;
  for (const std::size_t bytes : parts) sum += bytes;
  return sum;
}

using Blocks = std::vector<std::shared_ptr<void>>;

// One step of training: receive a batch, then drop the one before.
void receive(Arena& arena, std::size_t& last_need, Blocks& blocks, std::size_t need) {
  const std::vector<std::size_t> parts = split_into_parts(need);
  const Arena::Offer offer = arena.make_offer(last_need);
  last_need = sum_of(parts);
  Blocks received = arena.settle(Arena::choose(offer, last_need), parts);
  blocks = std::move(received);
}

TEST(ArenaPatterns, AlternatingBatchesOfVaryingSizeStayWithinTheirOwnSize) {
  Random random(1);
  for (std::size_t base = 200'000; base < 400'000'000; base += base / 9) {
    const auto arena = make_arena(std::size_t{4} << 30);
    std::size_t last_need = 0;
    Blocks blocks;
    for (int step = 0; step < 200; ++step) {
      const std::size_t need = base - base * 3 / 100 + number_up_to(random, base * 6 / 100);
      receive(*arena, last_need, blocks, need);
    }
    EXPECT_LE(static_cast<double>(arena->statistics().high_water_bytes),
              1.3 * 2 * static_cast<double>(base))
        << "base " << base;
  }
}

TEST(ArenaPatterns, LayersHeldForBackwardAreReusedInTheNextStep) {
  constexpr std::size_t kLayers = 12;
  constexpr std::size_t kBase = 10'000'000;
  Random random(2);
  const auto arena = make_arena(std::size_t{1} << 30);
  std::size_t last_need = 0;
  for (int step = 0; step < 100; ++step) {
    std::vector<Blocks> held(kLayers);
    for (Blocks& blocks : held) {
      receive(*arena, last_need, blocks, kBase - kBase / 33 + number_up_to(random, kBase / 17));
    }
    while (!held.empty()) held.pop_back();
  }
  EXPECT_LE(static_cast<double>(arena->statistics().high_water_bytes), 1.3 * kLayers * kBase);
}

// Blocks as the test knows them: filled with a byte of their own.
class Model {
 public:
  Model(std::size_t capacity, std::uint64_t seed) : arena_(make_arena(capacity)), random_(seed) {}

  void step() {
    const std::size_t choice = number_up_to(random_, 9);
    if (choice < 3) {
      allocate();
    } else if (choice < 6) {
      offer_and_settle();
    } else if (!blocks_.empty()) {
      drop(number_up_to(random_, blocks_.size() - 1));
    }
    if (choice == 9) arena_->discard_unused();
    check_totals();
  }

  void drop_all() {
    while (!blocks_.empty()) drop(blocks_.size() - 1);
    check_totals();
  }

  const Arena& arena() const { return *arena_; }
  bool whole_capacity_is_free() {
    const ArenaSpan largest = arena_->make_offer(0).largest;
    arena_->abandon();
    return largest.offset == 0 && largest.bytes == arena_->statistics().capacity_bytes;
  }

 private:
  struct Block {
    std::shared_ptr<void> owner;
    std::size_t bytes = 0;
    int fill = 0;
  };

  void allocate() {
    const std::size_t bytes = number_up_to(random_, 60'000);
    try {
      add(arena_->allocate(bytes), bytes);
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kInvalidArgument);
      ASSERT_LT(arena_->make_offer(0).largest.bytes, bytes);
      arena_->abandon();
    }
  }

  void offer_and_settle() {
    const std::size_t expected = number_up_to(random_, 60'000);
    const Arena::Offer offer = arena_->make_offer(expected);
    std::vector<std::size_t> parts(number_up_to(random_, 4));
    for (std::size_t& part : parts) part = number_up_to(random_, 60) * kArenaAlignment;
    const std::size_t needed = sum_of(parts);
    ASSERT_TRUE(offer.expected.bytes == 0 || offer.expected.bytes >= expected);
    ASSERT_GE(offer.largest.bytes, offer.expected.bytes);
    const ArenaSpan chosen = Arena::choose(offer, needed);
    if (needed > chosen.bytes || number_up_to(random_, 9) == 0) return arena_->abandon();
    const auto owners = arena_->settle(chosen, parts);
    ASSERT_EQ(owners.size(), parts.size());
    std::size_t offset = chosen.offset;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      ASSERT_EQ(arena_->offset_of(owners[i].get()), offset);
      add(owners[i], parts[i]);
      offset += parts[i];
    }
  }

  void add(std::shared_ptr<void> owner, std::size_t bytes) {
    ASSERT_NE(owner, nullptr);
    ASSERT_EQ(arena_->offset_of(owner.get()) % kArenaAlignment, 0U);
    if (bytes > 0) {
      ASSERT_TRUE(arena_->contains(owner.get(), bytes));
    }
    next_fill_ = next_fill_ % 255 + 1;
    std::memset(owner.get(), next_fill_, bytes);
    blocks_.push_back({std::move(owner), bytes, next_fill_});
  }

  // A block that overlaps another one, or that was given to two owners, has foreign bytes by now.
  void drop(std::size_t position) {
    const Block& block = blocks_[position];
    const auto* const bytes = static_cast<const unsigned char*>(block.owner.get());
    for (std::size_t i = 0; i < block.bytes; ++i) ASSERT_EQ(bytes[i], block.fill);
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(position));
  }

  void check_totals() {
    std::size_t wanted = 0;
    for (const Block& block : blocks_) wanted += block.bytes;
    const ArenaStatistics statistics = arena_->statistics();
    ASSERT_GE(statistics.live_bytes, wanted);
    ASSERT_LE(statistics.live_bytes, statistics.high_water_bytes);
    ASSERT_LE(statistics.live_bytes, statistics.peak_live_bytes);
    ASSERT_LE(statistics.high_water_bytes, statistics.capacity_bytes);
    if (blocks_.empty()) {
      ASSERT_EQ(statistics.live_bytes, 0U);
    }
  }

  std::shared_ptr<Arena> arena_;
  Random random_;
  std::vector<Block> blocks_;
  int next_fill_ = 0;
};

TEST(ArenaPatterns, RandomUseAgreesWithAModel) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Model model(std::size_t{1} << 20, seed);
    for (int step = 0; step < 500 && !::testing::Test::HasFatalFailure(); ++step) model.step();
    model.drop_all();
    EXPECT_TRUE(model.whole_capacity_is_free()) << "seed " << seed;
  }
}

TEST(ArenaPatterns, BlocksMayBeAllocatedAndReleasedByManyThreads) {
  const auto arena = make_arena(std::size_t{64} << 20);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&arena, thread] {
      Random random(static_cast<std::uint64_t>(thread));
      Blocks blocks(8);
      for (int step = 0; step < 2000; ++step) {
        std::shared_ptr<void>& block = blocks[number_up_to(random, blocks.size() - 1)];
        block.reset();
        block = arena->allocate(number_up_to(random, 50'000) + 1);
        *static_cast<int*>(block.get()) = thread;
        EXPECT_TRUE(arena->contains(block.get(), 1));
      }
      for (const auto& block : blocks) {
        if (block) {
          EXPECT_EQ(*static_cast<int*>(block.get()), thread);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(arena->statistics().live_bytes, 0U);
}

TEST(ArenaPatterns, BlocksMayBeReleasedByOtherThreadsWhileAnOfferIsOpen) {
  const auto arena = make_arena(std::size_t{8} << 20);
  for (int round = 0; round < 200; ++round) {
    Blocks blocks;
    for (int i = 0; i < 8; ++i) blocks.push_back(arena->allocate(100'000));
    const Arena::Offer offer = arena->make_offer(100'000);
    std::thread releaser([&blocks] { blocks.clear(); });
    const std::size_t parts[] = {kArenaAlignment * 100, kArenaAlignment * 300};
    const auto owners = arena->settle(Arena::choose(offer, 400 * kArenaAlignment), parts);
    releaser.join();
    EXPECT_EQ(owners.size(), 2U);
  }
  EXPECT_EQ(arena->statistics().live_bytes, 0U);
  EXPECT_EQ(arena->make_offer(0).largest.bytes, arena->statistics().capacity_bytes);
}

}  // namespace
}  // namespace moelink
