// Memory of captured calls: kept, handed on within a capture, and never to anybody else.
#include "backend/capture_pool.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "symm/arena.hpp"
#include "symm/fake_memory.hpp"

namespace moelink {
namespace {

constexpr std::size_t kCapacity = std::size_t{1} << 16;
constexpr std::size_t kBytes = 4096;

std::shared_ptr<Arena> make_arena() {
  return Arena::make(std::make_shared<test::FakeMemory>(kCapacity), 0, kCapacity,
                     [] { return std::size_t{1} << 30; });
}

TEST(CapturePool, HandsWhatIsLetGoToTheNextCallOfTheCapture) {
  const auto arena = make_arena();
  const auto pool = std::make_shared<CapturePool>();
  std::shared_ptr<void> first = pool->allocate(*arena, 1, kBytes);
  void* const address = first.get();
  const std::shared_ptr<void> beside = pool->allocate(*arena, 1, kBytes);
  EXPECT_NE(beside.get(), address);
  first.reset();
  EXPECT_EQ(pool->allocate(*arena, 1, kBytes).get(), address);
}

TEST(CapturePool, ManyLayersTakeTheMemoryOfTwo) {
  const auto arena = make_arena();
  const auto pool = std::make_shared<CapturePool>();
  std::shared_ptr<void> layer = pool->allocate(*arena, 7, kBytes);
  const std::size_t of_one = arena->statistics().live_bytes;
  for (int i = 0; i < 100; ++i) layer = pool->allocate(*arena, 7, kBytes);
  EXPECT_EQ(arena->statistics().live_bytes, 2 * of_one);
}

TEST(CapturePool, KeepsMemoryFromOtherCapturesAndSizesAndFromTheArena) {
  const auto arena = make_arena();
  const auto pool = std::make_shared<CapturePool>();
  void* const address = pool->allocate(*arena, 1, kBytes).get();
  EXPECT_NE(pool->allocate(*arena, 2, kBytes).get(), address);
  EXPECT_NE(pool->allocate(*arena, 1, 2 * kBytes).get(), address);
  EXPECT_NE(arena->allocate(kBytes).get(), address);
}

TEST(CapturePool, BlocksThatAreHeldOutliveThePool) {
  const auto arena = make_arena();
  auto pool = std::make_shared<CapturePool>();
  std::shared_ptr<void> held = pool->allocate(*arena, 1, kBytes);
  pool->retain(arena->allocate(kBytes));
  pool.reset();
  EXPECT_GE(arena->statistics().live_bytes, kBytes);
  held.reset();
  EXPECT_EQ(arena->statistics().live_bytes, 0U);
}

}  // namespace
}  // namespace moelink
