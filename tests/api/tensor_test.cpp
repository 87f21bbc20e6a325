// Views of tensors and their texts.
#include "moelink/types.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace moelink {
namespace {

TEST(TensorView, ContiguousOnesAreRowMajor) {
  const TensorView view = TensorView::contiguous(nullptr, DType::kFloat32, {2, 3, 4});
  EXPECT_EQ(view.ndim, 3);
  EXPECT_EQ(view.strides[0], 12);
  EXPECT_EQ(view.strides[1], 4);
  EXPECT_EQ(view.strides[2], 1);
  EXPECT_EQ(view.num_elements(), 24);
  EXPECT_EQ(view.num_bytes(), 96U);
  EXPECT_TRUE(view.is_contiguous());
}

TEST(TensorView, StridesOfDimensionsWithOneElementDoNotMatter) {
  TensorView view = TensorView::contiguous(nullptr, DType::kInt8, {5, 1, 3});
  view.strides[1] = 999;
  EXPECT_TRUE(view.is_contiguous());
  view.strides[0] = 4;
  EXPECT_FALSE(view.is_contiguous());
}

TEST(TensorView, EmptyOnesAreContiguousWhateverTheirStrides) {
  TensorView view = TensorView::contiguous(nullptr, DType::kInt64, {0, 7});
  view.strides = {3, 9};
  EXPECT_TRUE(view.is_contiguous());
  EXPECT_EQ(view.num_bytes(), 0U);
}

TEST(TensorView, DescribesTypeAndShape) {
  EXPECT_EQ(TensorView::contiguous(nullptr, DType::kBFloat16, {4096, 7168}).describe(),
            "bfloat16 [4096, 7168]");
  EXPECT_EQ(TensorView::contiguous(nullptr, DType::kFloat8E4M3, {}).describe(), "float8_e4m3fn []");
}

TEST(HostTensor, IsAlignedZeroFilledAndOwned) {
  for (const std::int64_t rows : {0, 1, 1000}) {
    const Tensor tensor = make_host_tensor(DType::kInt32, {rows, 5});
    EXPECT_TRUE(tensor.defined());
    EXPECT_NE(tensor.view.data, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.view.data) % 64, 0U);
    EXPECT_EQ(tensor.storage.get(), tensor.view.data);
    for (std::int64_t i = 0; i < rows * 5; ++i) EXPECT_EQ(tensor.view.as<std::int32_t>()[i], 0);
  }
  EXPECT_FALSE(Tensor{}.defined());
}

}  // namespace
}  // namespace moelink
