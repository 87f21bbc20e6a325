// Small tensors that share a block of memory.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "moelink/types.hpp"

namespace moelink {

// Tensors in one block, which lives as long as any of them: for those that are small and many.
class TensorPack {
 public:
  // Contiguous. The tensor must stay where it is until place_in().
  void add(Tensor& tensor, DType dtype, std::initializer_list<std::int64_t> shape) {
    tensor.view = TensorView::contiguous(nullptr, dtype, shape);
    places_.emplace_back(&tensor, num_bytes_);
    num_bytes_ += (tensor.view.num_bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }

  std::size_t num_bytes() const { return num_bytes_; }

  // Gives all tensors their memory, contents unspecified; `block` has num_bytes().
  void place_in(const std::shared_ptr<void>& block) const {
    for (const auto& [tensor, offset] : places_) {
      tensor->view.data = static_cast<std::byte*>(block.get()) + offset;
      tensor->storage = block;
    }
  }

 private:
  static constexpr std::size_t kAlignment = 64;

  std::vector<std::pair<Tensor*, std::size_t>> places_;
  std::size_t num_bytes_ = 0;
};

}  // namespace moelink
