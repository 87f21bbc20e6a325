// Checks of tensors that the calls on a Buffer share. Each adds what is wrong to the violations.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>

#include "base/check.hpp"
#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Whether a handle was made by the buffer that it is given to.
enum class HandleOrigin { kOwn, kForeign };

inline constexpr std::int64_t kAnyExtent = -1;

// `name` is the argument as the user calls it; `expected` uses kAnyExtent for free dimensions.
void check_shape(Violations& violations, const char* name, const TensorView& tensor,
                 std::initializer_list<std::int64_t> expected);
void check_dtype(Violations& violations, const char* name, const TensorView& tensor,
                 std::initializer_list<DType> allowed);
void check_contiguous(Violations& violations, const char* name, const TensorView& tensor);
// A payload: contiguous, rows of a multiple of kRowGranuleBytes, start aligned to the same.
void check_rows(Violations& violations, const char* name, const TensorView& tensor);
void check_stream(Violations& violations, const StreamOptions& stream);

// Opens messages with the call and this rank.
Violations violations_of(const char* call, const Group& group);
void check_num_experts(Violations& violations, int num_experts, const BufferConfig& buffer,
                       const Group& group);
void check_topk_idx(Violations& violations, const TensorView& topk_idx, std::int64_t num_tokens);
void check_weights(Violations& violations, const std::optional<TensorView>& weights,
                   std::initializer_list<std::int64_t> shape);

// False if there is no usable handle to check other arguments against.
template <class Handle>
bool check_handle(Violations& violations, const std::shared_ptr<const Handle>& handle,
                  HandleOrigin origin) {
  violations.require(handle != nullptr, "handle is missing, expected the handle of a dispatch");
  violations.require(handle == nullptr || origin == HandleOrigin::kOwn,
                     "handle was made by another buffer, expected one of this buffer");
  return handle != nullptr && origin == HandleOrigin::kOwn;
}

}  // namespace moelink
