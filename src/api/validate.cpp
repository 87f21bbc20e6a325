// One function per call: every argument, its type, its shape, and what it must agree with.
#include "api/validate.hpp"

#include "api/argument_checks.hpp"
#include "base/check.hpp"
#include "moelink/routing.hpp"
#include "protocol/limits.hpp"

namespace moelink {
namespace {

void check_payload(Violations& violations, const TensorView& x,
                   const std::optional<TensorView>& scales, const BufferConfig& buffer) {
  check_rows(violations, "x", x);
  if (x.ndim != 2) return;
  const std::size_t row_bytes = static_cast<std::size_t>(x.shape[1]) * dtype_size(x.dtype);
  violations.require(buffer.hidden_bytes == 0 || row_bytes <= buffer.hidden_bytes,
                     "x is {}: a row has {} bytes, the buffer was made for hidden_bytes={}",
                     x.describe(), row_bytes, buffer.hidden_bytes);
  if (!scales) return;
  check_shape(violations, "scales", *scales, {x.shape[0], kAnyExtent});
  check_dtype(violations, "scales", *scales,
              {DType::kFloat32, DType::kInt32, DType::kUInt8, DType::kFloat8UE8M0});
}

void check_mask(Violations& violations, const DispatchConfig& config, const Group& group) {
  if (!config.is_token_in_rank) return;
  check_shape(violations, "is_token_in_rank", *config.is_token_in_rank,
              {config.x.shape[0], group.num_ranks()});
  check_dtype(violations, "is_token_in_rank", *config.is_token_in_rank,
              {DType::kBool, DType::kUInt8});
  check_contiguous(violations, "is_token_in_rank", *config.is_token_in_rank);
  violations.require(config.layout == Layout::kCompact,
                     "is_token_in_rank needs the compact layout, layout is expert_major");
}

void check_stats(Violations& violations, const DispatchConfig& config, const Group& group) {
  if (!config.recv_stats) return;
  const std::int64_t num_local = config.num_experts / group.num_ranks();
  check_shape(violations, "recv_stats", *config.recv_stats, {num_local});
  check_dtype(violations, "recv_stats", *config.recv_stats, {DType::kInt32});
  check_contiguous(violations, "recv_stats", *config.recv_stats);
}

void check_like_result(Violations& violations, const char* name,
                       const std::optional<TensorView>& tensor, const CombineConfig& config) {
  if (!tensor || config.x.ndim != 2) return;
  check_shape(violations, name, *tensor, {config.handle->num_tokens(), config.x.shape[1]});
  check_dtype(violations, name, *tensor, {config.x.dtype});
  check_rows(violations, name, *tensor);
}

}  // namespace

void validate(const BufferConfig& config, const Group& group) {
  Violations violations = violations_of("Buffer", group);
  violations.require(config.max_num_experts >= group.num_ranks(),
                     "max_num_experts is {}, expected at least the number of ranks, {}",
                     config.max_num_experts, group.num_ranks());
  violations.require(config.num_workers >= 0, "num_workers is {}, expected 0 or more",
                     config.num_workers);
  violations.require(config.timeout.count() >= 0, "timeout is {} ms, expected 0 or more",
                     config.timeout.count());
  violations.require(group.num_ranks() <= kMaxRanks,
                     "the group has {} ranks, at most {} are supported", group.num_ranks(),
                     kMaxRanks);
  violations.throw_if_any();
}

void validate(const LayoutConfig& config, const BufferConfig& buffer, const Group& group) {
  Violations violations = violations_of("query_layout", group);
  check_num_experts(violations, config.num_experts, buffer, group);
  check_topk_idx(violations, config.topk_idx, kAnyExtent);
  violations.throw_if_any();
}

void validate(const DispatchConfig& config, const BufferConfig& buffer, const Group& group) {
  Violations violations = violations_of("dispatch", group);
  check_payload(violations, config.x, config.scales, buffer);
  const bool has_topk = config.topk_idx.ndim > 0;
  violations.require(has_topk || config.is_token_in_rank,
                     "topk_idx is missing, expected it or is_token_in_rank");
  if (has_topk) {
    check_num_experts(violations, config.num_experts, buffer, group);
    check_topk_idx(violations, config.topk_idx, config.x.shape[0]);
    check_weights(violations, config.topk_weights,
                  {config.topk_idx.shape[0], config.topk_idx.shape[1]});
    check_stats(violations, config, group);
  } else {
    if (config.num_experts != 0) check_num_experts(violations, config.num_experts, buffer, group);
    violations.require(!config.topk_weights, "topk_weights were given without topk_idx");
    violations.require(!config.recv_stats, "recv_stats was given without topk_idx");
  }
  check_mask(violations, config, group);
  violations.require(config.expert_alignment >= 1, "expert_alignment is {}, expected 1 or more",
                     config.expert_alignment);
  violations.require(config.num_worst_tokens >= 0, "num_worst_tokens is {}, expected 0 or more",
                     config.num_worst_tokens);
  check_stream(violations, config.stream);
  violations.throw_if_any();
}

void validate(const CachedDispatchConfig& config, HandleOrigin origin, const BufferConfig& buffer,
              const Group& group) {
  Violations violations = violations_of("cached_dispatch", group);
  check_payload(violations, config.x, config.scales, buffer);
  if (check_handle(violations, config.handle, origin)) {
    const Routing& handle = *config.handle;
    violations.require(config.x.ndim != 2 || config.x.shape[0] == handle.num_tokens(),
                       "x is {}, the handle was made for {} tokens", config.x.describe(),
                       handle.num_tokens());
    violations.require(!config.topk_weights || handle.num_topk() > 0,
                       "topk_weights were given, the handle was made without topk_idx");
    check_weights(violations, config.topk_weights, {handle.num_tokens(), handle.num_topk()});
  }
  check_stream(violations, config.stream);
  violations.throw_if_any();
}

void validate(const CombineConfig& config, HandleOrigin origin, const Group& group) {
  Violations violations = violations_of("combine", group);
  check_rows(violations, "x", config.x);
  violations.require(dtype_traits(config.x.dtype).reducible == Reducible::kYes,
                     "x is {}, expected dtype bfloat16 or float16 or float32", config.x.describe());
  if (check_handle(violations, config.handle, origin)) {
    const Routing& handle = *config.handle;
    const std::int64_t rows = handle.num_recv_rows();
    violations.require(config.x.ndim != 2 || config.x.shape[0] == rows,
                       "x is {}, expected {} rows as received by the dispatch of the handle",
                       config.x.describe(), rows);
    if (handle.layout() == Layout::kCompact) {
      check_weights(violations, config.topk_weights, {rows, handle.num_topk()});
    } else {
      check_weights(violations, config.topk_weights, {rows});
    }
    check_like_result(violations, "bias_0", config.bias_0, config);
    check_like_result(violations, "bias_1", config.bias_1, config);
    check_like_result(violations, "out", config.out, config);
  }
  check_stream(violations, config.stream);
  violations.throw_if_any();
}

}  // namespace moelink
