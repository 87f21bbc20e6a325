// Checks of tensors that the calls on a Buffer share. Each adds what is wrong to the violations.
#pragma once

#include <initializer_list>
#include <optional>

#include "base/check.hpp"
#include "moelink/config.hpp"
#include "moelink/types.hpp"

namespace moelink {

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

}  // namespace moelink
