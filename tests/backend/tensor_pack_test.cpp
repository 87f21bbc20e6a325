// Several tensors in one block.
#include "backend/tensor_pack.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "symm/arena.hpp"
#include "symm/fake_memory.hpp"

namespace moelink {
namespace {

std::shared_ptr<Arena> arena_of(std::size_t capacity) {
  return Arena::make(std::make_shared<test::FakeMemory>(capacity), 0, capacity,
                     [] { return std::size_t{1} << 30; });
}

TEST(TensorPack, GivesEachTensorItsOwnAlignedPlaceInOneBlock) {
  const auto arena = arena_of(1 << 16);
  Tensor a;
  Tensor b;
  TensorPack pack;
  pack.add(a, DType::kInt32, {3, 7});
  pack.add(b, DType::kInt64, {2});
  pack.place_in(arena->allocate(pack.num_bytes()));
  const auto begin = reinterpret_cast<std::uintptr_t>(a.view.data);
  const auto second = reinterpret_cast<std::uintptr_t>(b.view.data);
  EXPECT_EQ(a.view.describe(), "int32 [3, 7]");
  EXPECT_GE(second, begin + 84);
  EXPECT_EQ((second - begin) % 64, 0U);
  EXPECT_TRUE(arena->contains(a.view.data, second + 16 - begin));
}

TEST(TensorPack, KeepsTheBlockAsLongAsOneTensorLives) {
  const auto arena = arena_of(1 << 16);
  Tensor kept;
  {
    Tensor other;
    TensorPack pack;
    pack.add(kept, DType::kInt32, {4});
    pack.add(other, DType::kInt32, {4});
    pack.place_in(arena->allocate(pack.num_bytes()));
  }
  EXPECT_GT(arena->statistics().live_bytes, 0U);
  kept = Tensor();
  EXPECT_EQ(arena->statistics().live_bytes, 0U);
}

}  // namespace
}  // namespace moelink
