// The tensors of a low latency dispatch, and its launches.
#include "backend/cuda/low_latency/cuda_low_latency_dispatch.hpp"

#include "backend/cuda/device_checks.hpp"
#include "backend/cuda/low_latency/launch_phase.hpp"
#include "backend/tensor_pack.hpp"
#include "base/check.hpp"
#include "kernels/low_latency/roles.hpp"

namespace moelink {
namespace {

std::size_t num_scales_of(const LowLatencyDispatchConfig& config) {
  if (!config.fp8) return 0;
  const auto blocks = static_cast<std::size_t>(config.x.shape[1]) / kScaleBlock;
  return *config.fp8 == ScaleFormat::kPackedUE8M0 ? blocks / 4 : blocks;
}

template <class T>
T* data_of(const std::optional<TensorView>& tensor) {
  return tensor ? tensor->as<T>() : nullptr;
}
template <class T>
T* data_of(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->view.as<T>() : nullptr;
}

}  // namespace

CudaLowLatencyDispatch::CudaLowLatencyDispatch(CudaContext& context,
                                               const LowLatencyDispatchConfig& config)
    : context_(context),
      config_(config),
      slot_(context, kOperation),
      routing_(std::make_shared<LowLatencyRouting>()),
      memory_(std::make_shared<CudaLowLatencyRouting>()) {}

void CudaLowLatencyDispatch::check_tensors() const {
  Violations violations(
      fmt::format("{} (rank {})", operation_name(kOperation), context_.rank.value()));
  const int device = context_.device;
  require_on_device(violations, "x", config_.x, device, kRowGranuleBytes);
  require_on_device(violations, "topk_idx", config_.topk_idx, device,
                    dtype_size(config_.topk_idx.dtype));
  require_on_device(violations, "topk_weights", config_.topk_weights, device, sizeof(float));
  require_on_device(violations, "recv_stats", config_.recv_stats, device, sizeof(std::int32_t));
  require_on_device(violations, "wait_cost", config_.wait_cost, device, sizeof(std::int64_t));
  violations.require(config_.x.shape[1] <= kernels::kMaxLowLatencyHidden,
                     "x is {}, expected a hidden size of at most {} on GPUs", config_.x.describe(),
                     kernels::kMaxLowLatencyHidden);
  violations.throw_if_any();
}

void CudaLowLatencyDispatch::prepare() {
  check_tensors();
  context_.note_capture(config_.stream);
  ensure_line_area(context_, config_.num_max_tokens_per_rank,
                   static_cast<int>(config_.topk_idx.shape[1]),
                   static_cast<std::size_t>(config_.x.shape[1]));
  make_tensors();
  make_rows();
  number_ = begin_low_latency(context_, kOperation);
}

void CudaLowLatencyDispatch::make_tensors() {
  const bool per_expert = config_.layout == LowLatencyLayout::kPerExpert;
  const int ranks = context_.num_ranks();
  const int max_tokens = config_.num_max_tokens_per_rank;
  const std::int64_t topk = config_.topk_idx.shape[1];
  const auto [groups, rows] =
      OutputExtents::make(config_.layout, ranks, config_.num_experts, max_tokens);
  LowLatencyRouting& routing = *routing_;
  routing.owner = context_.id;
  routing.layout = config_.layout;
  routing.num_tokens = config_.x.shape[0];
  routing.num_max_tokens_per_rank = max_tokens;
  routing.hidden = config_.x.shape[1];
  routing.num_experts = config_.num_experts;
  routing.num_topk = static_cast<int>(topk);
  Tensor num_received;
  Tensor source_token;
  Tensor out_rows;
  Tensor weights;
  TensorPack pack;
  pack.add(routing.recv_count, DType::kInt32, {groups});
  pack.add(routing.layout_range, DType::kInt64, {groups, ranks});
  pack.add(routing.src_info, DType::kInt32, {groups, rows});
  pack.add(routing.src_topk, DType::kInt32, {groups, rows});
  pack.add(num_received, DType::kInt32, {ranks});
  pack.add(source_token, DType::kInt32, {ranks, max_tokens});
  pack.add(out_rows, DType::kInt32, {ranks, max_tokens, topk});
  if (config_.topk_weights) pack.add(weights, DType::kFloat32, {ranks, max_tokens, topk});
  if (config_.topk_weights && per_expert) {
    pack.add(routing.src_weight, DType::kFloat32, {groups, rows});
  }
  if (!per_expert) {
    pack.add(result_.recv_topk_idx.emplace(), DType::kInt32, {groups, rows, topk});
    if (config_.topk_weights) {
      pack.add(result_.recv_topk_weights.emplace(), DType::kFloat32, {groups, rows, topk});
    }
  }
  pack.place_in(context_.allocate(pack.num_bytes()));
  memory_->owner = num_received.storage;
  memory_->memory = {num_received.view.as<std::int32_t>(), source_token.view.as<std::int32_t>(),
                     out_rows.view.as<std::int32_t>(), weights.view.as<float>()};
  routing.cuda = memory_;
  result_.recv_count = routing.recv_count;
  result_.handle = routing_;
}

void CudaLowLatencyDispatch::make_rows() {
  const auto [groups, rows] = OutputExtents::make(
      config_.layout, context_.num_ranks(), config_.num_experts, config_.num_max_tokens_per_rank);
  const DType dtype = config_.fp8 ? DType::kFloat8E4M3 : DType::kBFloat16;
  result_.recv_x = context_.make_tensor(dtype, {groups, rows, config_.x.shape[1]});
  if (!config_.fp8) return;
  const bool packed = *config_.fp8 == ScaleFormat::kPackedUE8M0;
  const auto num_scales = static_cast<std::int64_t>(num_scales_of(config_));
  TensorView& scales = result_.recv_scales
                           .emplace(context_.make_tensor(packed ? DType::kInt32 : DType::kFloat32,
                                                         {groups, rows, num_scales}))
                           .view;
  scales.strides[1] = 1;  // the rows of one column next to each other, as grouped GEMMs want them
  scales.strides[2] = rows;
}

kernels::LowLatencyDispatchParams CudaLowLatencyDispatch::params() const {
  const LowLatencyRouting& routing = *routing_;
  kernels::LowLatencyDispatchParams made;
  made.link = low_latency_link(context_, config_.num_experts, config_.topk_idx,
                               data_of<const float>(config_.topk_weights));
  made.link.wait_cost = data_of<std::int64_t>(config_.wait_cost);
  made.link.header.operation = static_cast<std::uint32_t>(kOperation);
  made.link.header.format =
      config_.fp8 ? 1 + static_cast<std::uint32_t>(*config_.fp8) : kWireBFloat16;
  made.link.header.has_weights = config_.topk_weights ? 1 : 0;
  made.layout = config_.layout;
  made.x = config_.x.as<const std::byte>();
  made.rows_per_group = static_cast<std::int32_t>(result_.recv_x.view.shape[1]);
  made.recv_x = result_.recv_x.view.as<std::byte>();
  made.recv_scales = data_of<std::int32_t>(result_.recv_scales);
  made.num_scales = static_cast<std::int32_t>(num_scales_of(config_));
  made.recv_count = routing.recv_count.view.as<std::int32_t>();
  made.layout_range = routing.layout_range.view.as<std::int64_t>();
  made.src_info = routing.src_info.view.as<std::int32_t>();
  made.src_topk = routing.src_topk.view.as<std::int32_t>();
  made.src_weight = routing.src_weight.view.as<float>();
  made.recv_topk_idx = data_of<std::int32_t>(result_.recv_topk_idx);
  made.recv_topk_weights = data_of<float>(result_.recv_topk_weights);
  if (config_.layout == LowLatencyLayout::kPerExpert) {
    made.recv_stats = data_of<std::int32_t>(config_.recv_stats);
  }
  made.memory = memory_->memory;
  return made;
}

void CudaLowLatencyDispatch::launch(kernels::LowLatencyPhase phase, cudaStream_t stream) {
  launch_phase(context_, params(), number_, phase, config_.stream, stream);
}

}  // namespace moelink
