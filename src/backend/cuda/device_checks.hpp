// Checks of tensors that only a GPU demands.
#pragma once

#include <cstddef>
#include <optional>

#include "base/check.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Adds a violation unless `tensor` is memory that the buffer's GPU reaches, aligned to `alignment`.
void require_on_device(Violations& violations, const char* name, const TensorView& tensor,
                       int device, std::size_t alignment);
void require_on_device(Violations& violations, const char* name,
                       const std::optional<TensorView>& tensor, int device, std::size_t alignment);

}  // namespace moelink
