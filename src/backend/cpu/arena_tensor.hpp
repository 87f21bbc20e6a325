// A tensor in an arena.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>

#include "moelink/types.hpp"
#include "symm/arena.hpp"

namespace moelink {

// Contiguous, contents unspecified. Throws as Arena::allocate does.
inline Tensor make_arena_tensor(Arena& arena, DType dtype,
                                std::initializer_list<std::int64_t> shape) {
  Tensor tensor;
  tensor.view = TensorView::contiguous(nullptr, dtype, shape);
  tensor.storage = arena.allocate(tensor.view.num_bytes());
  tensor.view.data = tensor.storage.get();
  return tensor;
}

}  // namespace moelink
