// Checks of the low latency calls: every argument, its type, its shape, and what it must agree
// with.
#include "api/argument_checks.hpp"
#include "api/validate.hpp"
#include "base/check.hpp"
#include "protocol/limits.hpp"
#include "protocol/low_latency_layout.hpp"

namespace moelink {
namespace {

constexpr int kHiddenGranule = kScaleBlock;
constexpr int kPackedHiddenGranule = 4 * kScaleBlock;  // four exponents make one int32

void check_sizes(Violations& violations, const LowLatencyDispatchConfig& config,
                 const BufferConfig& buffer, const Group& group) {
  const int max_tokens = config.num_max_tokens_per_rank;
  violations.require(max_tokens >= 1 && max_tokens <= kMaxLowLatencyTokens,
                     "num_max_tokens_per_rank is {}, expected 1 to {}", max_tokens,
                     kMaxLowLatencyTokens);
  check_num_experts(violations, config.num_experts, buffer, group);
  if (config.x.ndim != 2) return;
  if (config.x.shape[0] > max_tokens) {
    violations.add("x is {}, expected at most num_max_tokens_per_rank={} tokens",
                   config.x.describe(), max_tokens);
  }
  const bool packed = config.fp8 == ScaleFormat::kPackedUE8M0;
  const int granule = packed ? kPackedHiddenGranule : kHiddenGranule;
  if (config.x.shape[1] % granule != 0 || config.x.shape[1] <= 0) {
    violations.add("x is {}, expected a hidden size that is a multiple of {}", config.x.describe(),
                   granule);
  }
}

void check_routing(Violations& violations, const TensorView& topk_idx,
                   const std::optional<TensorView>& weights, std::int64_t num_tokens) {
  check_topk_idx(violations, topk_idx, num_tokens);
  if (topk_idx.ndim == 2) check_weights(violations, weights, {num_tokens, topk_idx.shape[1]});
}

void check_vector(Violations& violations, const char* name, const std::optional<TensorView>& tensor,
                  DType dtype, std::int64_t extent) {
  if (!tensor) return;
  check_shape(violations, name, *tensor, {extent});
  check_dtype(violations, name, *tensor, {dtype});
  check_contiguous(violations, name, *tensor);
}

void check_execution(Violations& violations, ReceivePhase receive, const StreamOptions& stream) {
  violations.require(receive == ReceivePhase::kInCall || stream.completion == Completion::kSync,
                     "a receive hook and an asynchronous call exclude each other, both were asked "
                     "for");
  check_stream(violations, stream);
}

void check_combine_input(Violations& violations, const LowLatencyCombineConfig& config,
                         const Group& group) {
  const LowLatencyRouting& handle = *config.handle;
  const bool per_expert = handle.layout == LowLatencyLayout::kPerExpert;
  const auto [groups, rows] = OutputExtents::make(
      handle.layout, group.num_ranks(), handle.num_experts, handle.num_max_tokens_per_rank);
  check_shape(violations, "x", config.x, {groups, rows, handle.hidden});
  check_dtype(violations, "x", config.x, {DType::kBFloat16});
  if (config.input == CombineInput::kTensor) check_contiguous(violations, "x", config.x);
  const bool reduces_here = config.numerics == CombineNumerics::kPreReduced && per_expert;
  violations.require(!reduces_here || handle.src_weight.defined(),
                     "pre-reduced numerics need topk_weights in the dispatch, it had none");
  const bool needs_weights = config.numerics == CombineNumerics::kExact && per_expert;
  violations.require(!needs_weights || config.topk_weights.ndim > 0,
                     "topk_weights are missing, expected float32 [{}, {}]", handle.num_tokens,
                     handle.num_topk);
}

}  // namespace

void validate(const LowLatencyDispatchConfig& config, const BufferConfig& buffer,
              const Group& group) {
  Violations violations = violations_of("low_latency_dispatch", group);
  check_rows(violations, "x", config.x);
  check_dtype(violations, "x", config.x, {DType::kBFloat16});
  check_sizes(violations, config, buffer, group);
  check_routing(violations, config.topk_idx, config.topk_weights, config.x.shape[0]);
  const std::int64_t num_local = config.num_experts / group.num_ranks();
  check_vector(violations, "recv_stats", config.recv_stats, DType::kInt32, num_local);
  check_vector(violations, "wait_cost", config.wait_cost, DType::kInt64, group.num_ranks());
  check_execution(violations, config.receive, config.stream);
  violations.throw_if_any();
}

void validate(const LowLatencyCombineConfig& config, HandleOrigin origin, const Group& group) {
  Violations violations = violations_of("low_latency_combine", group);
  if (check_handle(violations, config.handle, origin)) {
    const LowLatencyRouting& handle = *config.handle;
    check_combine_input(violations, config, group);
    std::optional<TensorView> weights;
    if (config.topk_weights.ndim > 0) weights = config.topk_weights;
    check_routing(violations, config.topk_idx, weights, handle.num_tokens);
    if (config.topk_idx.ndim == 2 && config.topk_idx.shape[1] != handle.num_topk) {
      violations.add("topk_idx is {}, the handle was made for a top-k of {}",
                     config.topk_idx.describe(), handle.num_topk);
    }
    if (config.out) {
      check_shape(violations, "out", *config.out, {handle.num_tokens, handle.hidden});
      check_dtype(violations, "out", *config.out, {DType::kBFloat16});
      check_contiguous(violations, "out", *config.out);
    }
  }
  check_vector(violations, "wait_cost", config.wait_cost, DType::kInt64, group.num_ranks());
  check_execution(violations, config.receive, config.stream);
  violations.throw_if_any();
}

void validate_handle(const std::shared_ptr<const LowLatencyRouting>& handle, HandleOrigin origin,
                     const Group& group) {
  Violations violations = violations_of("low_latency_combine_buffer", group);
  check_handle(violations, handle, origin);
  violations.throw_if_any();
}

void validate_peer(Rank peer, const Group& group) {
  Violations violations = violations_of("mask", group);
  violations.require(peer.value() >= 0 && peer.value() < group.num_ranks() && peer != group.rank(),
                     "rank is {}, expected another rank from 0 to {}", peer.value(),
                     group.num_ranks() - 1);
  violations.throw_if_any();
}

}  // namespace moelink
