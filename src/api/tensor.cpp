// Views of tensors: sizes, contiguity and their texts.
#include <fmt/ranges.h>

#include <cstdlib>
#include <new>
#include <span>

#include "base/check.hpp"
#include "moelink/types.hpp"

namespace moelink {
namespace {

constexpr std::size_t kHostAlignment = 64;

}  // namespace

TensorView TensorView::contiguous(void* data, DType dtype,
                                  std::initializer_list<std::int64_t> shape) {
  if (shape.size() > kMaxTensorDims) {
    fail(ErrorCode::kInvalidArgument, "a tensor has {} dimensions, at most {} are supported",
         shape.size(), kMaxTensorDims);
  }
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.ndim = static_cast<int>(shape.size());
  std::size_t axis = 0;
  for (const std::int64_t extent : shape) view.shape[axis++] = extent;
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    view.strides[i] = stride;
    stride *= view.shape[i];
  }
  return view;
}

std::int64_t TensorView::num_elements() const {
  std::int64_t count = 1;
  for (std::size_t i = 0; i < static_cast<std::size_t>(ndim); ++i) count *= shape[i];
  return count;
}

std::size_t TensorView::num_bytes() const {
  return static_cast<std::size_t>(num_elements()) * dtype_size(dtype);
}

bool TensorView::is_contiguous() const {
  if (num_elements() == 0) return true;
  std::int64_t expected = 1;
  for (std::size_t i = static_cast<std::size_t>(ndim); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

std::string TensorView::describe() const {
  const std::span<const std::int64_t> extents(shape.data(), static_cast<std::size_t>(ndim));
  return fmt::format("{} [{}]", dtype_name(dtype), fmt::join(extents, ", "));
}

Tensor make_host_tensor(DType dtype, std::initializer_list<std::int64_t> shape) {
  Tensor tensor;
  tensor.view = TensorView::contiguous(nullptr, dtype, shape);
  const std::size_t bytes = std::max<std::size_t>(tensor.view.num_bytes(), 1);
  const std::size_t padded = (bytes + kHostAlignment - 1) / kHostAlignment * kHostAlignment;
  void* const memory = std::aligned_alloc(kHostAlignment, padded);
  if (memory == nullptr) throw std::bad_alloc();
  std::fill_n(static_cast<std::byte*>(memory), padded, std::byte{0});
  tensor.storage = std::shared_ptr<void>(memory, std::free);
  tensor.view.data = memory;
  return tensor;
}

}  // namespace moelink
