// The launches of a low latency combine.
#include "backend/cuda/low_latency/cuda_low_latency_combine.hpp"

#include "backend/cuda/device_checks.hpp"
#include "backend/cuda/low_latency/launch_phase.hpp"
#include "base/check.hpp"

namespace moelink {

CudaLowLatencyCombine::CudaLowLatencyCombine(CudaContext& context,
                                             const LowLatencyCombineConfig& config)
    : context_(context), config_(config), slot_(context, kOperation) {}

void CudaLowLatencyCombine::check_tensors() const {
  Violations violations(
      fmt::format("{} (rank {})", operation_name(kOperation), context_.rank.value()));
  const int device = context_.device;
  require_on_device(violations, "x", config_.x, device, kRowGranuleBytes);
  require_on_device(violations, "topk_idx", config_.topk_idx, device,
                    dtype_size(config_.topk_idx.dtype));
  if (config_.topk_weights.ndim > 0) {
    require_on_device(violations, "topk_weights", config_.topk_weights, device, sizeof(float));
  }
  require_on_device(violations, "out", config_.out, device, kRowGranuleBytes);
  require_on_device(violations, "wait_cost", config_.wait_cost, device, sizeof(std::int64_t));
  violations.throw_if_any();
}

void CudaLowLatencyCombine::take_combine_area() {
  if (config_.input != CombineInput::kNextArea) return;
  const CudaLowLatency& low_latency = context_.low_latency;
  if (low_latency.combine_area_for != low_latency.num_sent + 1) {
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): the combine buffer is stale: ask for it again after the last low latency "
         "operation",
         operation_name(kOperation), context_.rank.value());
  }
  config_.x = low_latency.combine_area.view;
  if (context_.is_captured()) context_.captured->retain(low_latency.combine_area.storage);
}

void CudaLowLatencyCombine::prepare() {
  context_.note_capture(config_.stream);
  take_combine_area();
  check_tensors();
  const LowLatencyRouting& handle = *config_.handle;
  ensure_line_area(context_, handle.num_max_tokens_per_rank, handle.num_topk,
                   static_cast<std::size_t>(handle.hidden));
  if (config_.out) {
    result_.combined_x.view = *config_.out;
  } else {
    result_.combined_x = context_.make_tensor(DType::kBFloat16, {handle.num_tokens, handle.hidden});
  }
  number_ = begin_low_latency(context_, kOperation);
}

bool CudaLowLatencyCombine::is_one_row_per_rank() const {
  return config_.handle->layout == LowLatencyLayout::kPerRank ||
         config_.numerics == CombineNumerics::kPreReduced;
}

kernels::LowLatencyCombineParams CudaLowLatencyCombine::params() const {
  const LowLatencyRouting& handle = *config_.handle;
  kernels::LowLatencyCombineParams made;
  const float* const weights =
      config_.topk_weights.ndim > 0 ? config_.topk_weights.as<const float>() : nullptr;
  made.link = low_latency_link(context_, handle.num_experts, config_.topk_idx, weights);
  if (config_.wait_cost) made.link.wait_cost = config_.wait_cost->as<std::int64_t>();
  made.link.header.operation = static_cast<std::uint32_t>(kOperation);
  made.link.header.format = is_one_row_per_rank() ? 1 : 0;
  made.numerics = is_one_row_per_rank() ? CombineNumerics::kPreReduced : CombineNumerics::kExact;
  made.sums_here = config_.numerics == CombineNumerics::kPreReduced &&
                   handle.layout == LowLatencyLayout::kPerExpert;
  made.x = config_.x.as<const std::byte>();
  made.memory = handle.cuda->memory;
  made.out = result_.combined_x.view.as<std::byte>();
  return made;
}

void CudaLowLatencyCombine::launch(kernels::LowLatencyPhase phase, cudaStream_t stream) {
  launch_phase(context_, params(), number_, phase, config_.stream, stream);
}

}  // namespace moelink
