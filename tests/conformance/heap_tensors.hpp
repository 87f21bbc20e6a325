// Memory of the user's tensors for backends that take them from the heap.
#pragma once

#include <cstring>
#include <memory>

#include "moelink/types.hpp"

namespace moelink::test {

inline std::shared_ptr<void> allocate_on_heap(std::size_t bytes) {
  return make_host_tensor(DType::kUInt8, {static_cast<std::int64_t>(bytes)}).storage;
}

inline void copy_on_heap(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

}  // namespace moelink::test
