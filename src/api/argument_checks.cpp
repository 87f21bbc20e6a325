// Texts of argument errors: the argument, what it is, what it should be.
#include "api/argument_checks.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "protocol/limits.hpp"

namespace moelink {
namespace {

std::string shape_text(std::initializer_list<std::int64_t> shape) {
  std::vector<std::string> extents;
  for (const std::int64_t extent : shape) {
    extents.push_back(extent == kAnyExtent ? "any" : std::to_string(extent));
  }
  return fmt::format("[{}]", fmt::join(extents, ", "));
}

}  // namespace

void check_shape(Violations& violations, const char* name, const TensorView& tensor,
                 std::initializer_list<std::int64_t> expected) {
  bool matches = static_cast<std::size_t>(tensor.ndim) == expected.size();
  std::size_t axis = 0;
  for (const std::int64_t extent : expected) {
    matches = matches && tensor.shape[axis] >= 0;
    matches = matches && (extent == kAnyExtent || tensor.shape[axis] == extent);
    ++axis;
  }
  if (!matches) {
    violations.add("{} is {}, expected shape {}", name, tensor.describe(), shape_text(expected));
  }
  if (tensor.data == nullptr && tensor.num_elements() > 0) {
    violations.add("{} is {} at a null address", name, tensor.describe());
  }
}

void check_dtype(Violations& violations, const char* name, const TensorView& tensor,
                 std::initializer_list<DType> allowed) {
  if (std::ranges::find(allowed, tensor.dtype) != allowed.end()) return;
  std::vector<std::string> names;
  for (const DType dtype : allowed) names.emplace_back(dtype_name(dtype));
  violations.add("{} is {}, expected dtype {}", name, tensor.describe(), fmt::join(names, " or "));
}

void check_contiguous(Violations& violations, const char* name, const TensorView& tensor) {
  if (tensor.is_contiguous()) return;
  const std::vector<std::int64_t> strides(tensor.strides.begin(),
                                          tensor.strides.begin() + tensor.ndim);
  violations.add("{} is {} with strides [{}], expected a contiguous tensor", name,
                 tensor.describe(), fmt::join(strides, ", "));
}

void check_rows(Violations& violations, const char* name, const TensorView& tensor) {
  check_shape(violations, name, tensor, {kAnyExtent, kAnyExtent});
  if (tensor.ndim != 2) return;
  check_contiguous(violations, name, tensor);
  const std::size_t row_bytes =
      static_cast<std::size_t>(tensor.shape[1]) * dtype_size(tensor.dtype);
  if (row_bytes == 0 || row_bytes % kRowGranuleBytes != 0) {
    violations.add("{} is {}: a row has {} bytes, expected a multiple of {}", name,
                   tensor.describe(), row_bytes, kRowGranuleBytes);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
  violations.require(tensor.num_elements() == 0 || address % kRowGranuleBytes == 0,
                     "{} starts at address {:#x}, expected a multiple of {}", name, address,
                     kRowGranuleBytes);
}

void check_stream(Violations& violations, const StreamOptions& stream) {
  violations.require(stream.num_workers >= 0, "num_workers is {}, expected 0 or more",
                     stream.num_workers);
}

Violations violations_of(const char* call, const Group& group) {
  return Violations(call, group.rank());
}

void check_num_experts(Violations& violations, int num_experts, const BufferConfig& buffer,
                       const Group& group) {
  violations.require(num_experts > 0 && num_experts % group.num_ranks() == 0,
                     "num_experts is {}, expected a positive multiple of the {} ranks", num_experts,
                     group.num_ranks());
  violations.require(num_experts <= buffer.max_num_experts,
                     "num_experts is {}, the buffer was made for max_num_experts={}", num_experts,
                     buffer.max_num_experts);
}

void check_topk_idx(Violations& violations, const TensorView& topk_idx, std::int64_t num_tokens) {
  check_shape(violations, "topk_idx", topk_idx, {num_tokens, kAnyExtent});
  check_dtype(violations, "topk_idx", topk_idx, {DType::kInt64, DType::kInt32});
  check_contiguous(violations, "topk_idx", topk_idx);
  if (topk_idx.ndim == 2 && (topk_idx.shape[1] < 1 || topk_idx.shape[1] > kMaxTopk)) {
    violations.add("topk_idx is {}, expected a top-k from 1 to {}", topk_idx.describe(), kMaxTopk);
  }
}

void check_weights(Violations& violations, const std::optional<TensorView>& weights,
                   std::initializer_list<std::int64_t> shape) {
  if (!weights) return;
  check_shape(violations, "topk_weights", *weights, shape);
  check_dtype(violations, "topk_weights", *weights, {DType::kFloat32});
  check_contiguous(violations, "topk_weights", *weights);
}

}  // namespace moelink
