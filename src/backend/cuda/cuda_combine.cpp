// Publishes where the rows are and launches.
#include "backend/cuda/cuda_combine.hpp"

#include <algorithm>

#include "backend/combine_digest.hpp"
#include "backend/cuda/cuda_routing.hpp"
#include "backend/cuda/device_checks.hpp"
#include "base/check.hpp"
#include "kernels/combine/launch.hpp"
#include "moelink/routing.hpp"
#include "protocol/staging_plan.hpp"

namespace moelink {

CudaCombine::CudaCombine(CudaContext& context, const CombineConfig& config)
    : context_(context),
      config_(config),
      state_(config.handle->state()),
      row_bytes_(static_cast<std::size_t>(config.x.shape[1]) * dtype_size(config.x.dtype)) {}

void CudaCombine::check_tensors() const {
  Violations violations(fmt::format("combine (rank {})", context_.rank.value()));
  require_on_device(violations, "x", config_.x, context_.device, kRowGranuleBytes);
  require_on_device(violations, "topk_weights", config_.topk_weights, context_.device, 4);
  require_on_device(violations, "bias_0", config_.bias_0, context_.device, kRowGranuleBytes);
  require_on_device(violations, "bias_1", config_.bias_1, context_.device, kRowGranuleBytes);
  require_on_device(violations, "out", config_.out, context_.device, kRowGranuleBytes);
  violations.throw_if_any();
}

CombineResult CudaCombine::run() {
  check_tensors();
  context_.note_capture(config_.stream);
  if (!context_.is_captured()) context_.kept.drop_finished();
  cudaStream_t const stream = context_.order->begin(config_.stream);
  if (config_.out) {
    result_.combined_x.view = *config_.out;
  } else {
    result_.combined_x =
        context_.make_tensor(config_.x.dtype, {state_.num_tokens, config_.x.shape[1]});
  }
  if (config_.topk_weights) {
    result_.combined_topk_weights =
        context_.make_tensor(DType::kFloat32, {state_.num_tokens, state_.num_topk});
  }
  context_.epoch = context_.epoch.next();
  kernels::CombineParams launched = params();
  publish_rows(launched, stream);
  launched.mine.spans[1] = publish_weights(stream);
  const kernels::CombinePlan plan =
      kernels::plan_combine(launched, context_.limits_for(config_.stream));
  kernels::launch_combine(launched, plan, stream);
  context_.kept.keep(std::move(published_), stream);
  result_.event = context_.order->end(config_.stream, context_.faults, context_.epoch);
  return result_;
}

kernels::CombineParams CudaCombine::params() const {
  kernels::CombineParams made;
  made.domain = context_.domain;
  made.mine.digest = combine_digest(config_, state_);
  made.mine.num_tokens = static_cast<std::uint64_t>(state_.num_tokens);
  made.num_tokens = state_.num_tokens;
  made.num_topk = state_.num_topk;
  made.layout = state_.layout;
  made.dtype = config_.x.dtype;
  made.row_bytes = row_bytes_;
  made.routing = state_.cuda->memory;
  made.num_experts = state_.num_experts;
  if (config_.bias_0) made.bias_0 = config_.bias_0->as<const std::byte>();
  if (config_.bias_1) made.bias_1 = config_.bias_1->as<const std::byte>();
  made.out = result_.combined_x.view.as<std::byte>();
  if (result_.combined_topk_weights) {
    made.out_weights = result_.combined_topk_weights->view.as<float>();
  }
  return made;
}

WireSpan CudaCombine::span_of(const void* data, std::size_t bytes) const {
  return WireSpan{context_.arena->offset_of(data), bytes};
}

void CudaCombine::publish_rows(kernels::CombineParams& launched, cudaStream_t stream) {
  const std::size_t bytes = config_.x.num_bytes();
  if (bytes == 0) return;
  const bool compact = state_.layout == Layout::kCompact;
  const bool in_arena = context_.arena->contains(config_.x.data, bytes);
  if (compact && in_arena) {
    launched.mine.spans[0] = span_of(config_.x.data, bytes);
    return;
  }
  if (!in_arena) ++context_.num_staged_combines;
  const std::int64_t num_rows = state_.max_rows > 0 ? state_.max_rows : state_.num_recv_tokens;
  const std::size_t ring_bytes =
      StagingRing::bytes(state_.num_ranks, std::max(state_.num_tokens, num_rows), row_bytes_);
  launched.ring = context_.staging_ring(ring_bytes, stream);
  launched.x = config_.x.as<const std::byte>();
  if (compact) launched.own_rows = launched.x;
  launched.received = state_.cuda->received;
  launched.mine.source = CombineSource::kStaged;
  launched.mine.spans[0] = span_of(launched.ring, ring_bytes);
}

WireSpan CudaCombine::publish_weights(cudaStream_t stream) {
  if (!config_.topk_weights || config_.topk_weights->num_bytes() == 0) return WireSpan{};
  const std::size_t bytes = config_.topk_weights->num_bytes();
  const void* const weights = config_.topk_weights->data;
  if (context_.arena->contains(weights, bytes)) return span_of(weights, bytes);
  published_.push_back(context_.allocate(bytes));
  check_cuda(
      cudaMemcpyAsync(published_.back().get(), weights, bytes, cudaMemcpyDeviceToDevice, stream),
      "copy weights into symmetric memory");
  return span_of(published_.back().get(), bytes);
}

}  // namespace moelink
