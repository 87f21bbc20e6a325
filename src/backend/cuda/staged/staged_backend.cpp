// High-throughput operations by way of the host.
#include "backend/cuda/staged/staged_backend.hpp"

#include <utility>

#include "backend/cuda/device_checks.hpp"
#include "backend/open_network.hpp"
#include "backend/opening.hpp"
#include "backend/routing_state.hpp"
#include "base/check.hpp"
#include "base/environment.hpp"
#include "moelink/routing.hpp"
#include "symm/collective_step.hpp"

namespace moelink {
namespace {

Deadline deadline_of(const Group& group, const BufferConfig& config) {
  return Deadline::after(config.timeout.count() > 0 ? config.timeout : group.timeout());
}

// The number of workers of the call is one of multiprocessors.
BufferConfig on_host(BufferConfig config) {
  config.device = {};
  config.num_workers = 0;
  config.stage_clock = StageClock::kOff;
  return config;
}

void check_device(const Group& group, const BufferConfig& config) {
  collective_step(group.bootstrap(), "choosing GPUs", deadline_of(group, config), [&] {
    int num_devices = 0;
    if (cudaGetDeviceCount(&num_devices) != cudaSuccess) num_devices = 0;
    cudaGetLastError();
    if (config.device.index < 0 || config.device.index >= num_devices) {
      fail(ErrorCode::kUnsupported, "device is {}, this process sees {} GPUs", config.device.index,
           num_devices);
    }
    return std::string();
  });
}

std::unique_ptr<Backend> open_host_side(const Group& group, const BufferConfig& config) {
  check_device(group, config);
  return make_cpu_backend(group, on_host(config));
}

TensorView view_of(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->view : TensorView{};
}

}  // namespace

bool needs_staging(const Group& group, const BufferConfig& config) {
  if (!uses_network(group.topology()) || environment().cuda_memory == "fabric") return false;
  if (environment().network != "auto") return true;
  return count_ranks_on_host(group, deadline_of(group, config)) < group.num_ranks();
}

StagedBackend::StagedBackend(const Group& group, const BufferConfig& config)
    : id_(next_buffer_id()),
      device_(config.device.index),
      host_(open_host_side(group, config)),
      copies_([this] {
        const DeviceScope device(device_);
        return StagedCopies(device_);
      }()) {}

LayoutResult StagedBackend::query_layout(const LayoutConfig& config) {
  const DeviceScope device(device_);
  const StreamOptions options{.cuda_stream = config.cuda_stream};
  copies_.begin(options);
  const Tensor topk_idx = copies_.to_host(config.topk_idx);
  copies_.await();
  const LayoutResult found =
      host_->query_layout({.topk_idx = topk_idx.view, .num_experts = config.num_experts});
  LayoutResult result;
  result.num_tokens_per_rank = copies_.to_device(found.num_tokens_per_rank);
  result.num_tokens_per_node = copies_.to_device(found.num_tokens_per_node);
  result.num_tokens_per_expert = copies_.to_device(found.num_tokens_per_expert);
  result.is_token_in_rank = copies_.to_device(found.is_token_in_rank);
  copies_.end(options);
  return result;
}

DispatchResult StagedBackend::dispatch(const DispatchConfig& config) {
  const DeviceScope device(device_);
  copies_.begin(config.stream);
  const Tensor x = copies_.to_host(config.x);
  const std::optional<Tensor> scales = copies_.to_host(config.scales);
  const std::optional<Tensor> weights = copies_.to_host(config.topk_weights);
  const std::optional<Tensor> mask = copies_.to_host(config.is_token_in_rank);
  const std::optional<Tensor> stats = copies_.to_host(config.recv_stats);
  std::optional<Tensor> topk_idx;
  if (config.topk_idx.ndim > 0) topk_idx = copies_.to_host(config.topk_idx);
  copies_.await();
  DispatchConfig call = config;
  call.x = x.view;
  call.scales = maybe_view(scales);
  call.topk_idx = view_of(topk_idx);
  call.topk_weights = maybe_view(weights);
  call.is_token_in_rank = maybe_view(mask);
  call.recv_stats = maybe_view(stats);
  call.stream = {};
  DispatchResult on_host = host_->dispatch(call);
  if (stats) copies_.copy_to(*config.recv_stats, stats->view);
  std::shared_ptr<const Routing> handle = handle_for(on_host.handle);
  DispatchResult result = take_back(std::move(on_host), config.stream);
  result.handle = std::move(handle);
  return result;
}

DispatchResult StagedBackend::dispatch(const CachedDispatchConfig& config) {
  const DeviceScope device(device_);
  copies_.begin(config.stream);
  const Tensor x = copies_.to_host(config.x);
  const std::optional<Tensor> scales = copies_.to_host(config.scales);
  const std::optional<Tensor> weights = copies_.to_host(config.topk_weights);
  copies_.await();
  DispatchResult result =
      take_back(host_->dispatch(CachedDispatchConfig{.x = x.view,
                                                     .scales = maybe_view(scales),
                                                     .topk_weights = maybe_view(weights),
                                                     .handle = config.handle->state().on_host}),
                config.stream);
  result.handle = config.handle;
  return result;
}

DispatchResult StagedBackend::take_back(DispatchResult on_host, const StreamOptions& options) {
  DispatchResult result;
  result.recv_x = copies_.to_device(on_host.recv_x);
  result.recv_scales = copies_.to_device(on_host.recv_scales);
  result.recv_topk_idx = copies_.to_device(on_host.recv_topk_idx);
  result.recv_topk_weights = copies_.to_device(on_host.recv_topk_weights);
  result.num_recv_tokens_per_expert = std::move(on_host.num_recv_tokens_per_expert);
  result.event = copies_.end(options);
  return result;
}

// Its tensors are the caller's to read, on the GPU; the host's side keeps its own.
std::shared_ptr<const Routing> StagedBackend::handle_for(
    const std::shared_ptr<const Routing>& on_host) {
  const RoutingState& theirs = on_host->state();
  auto mine = std::make_shared<RoutingState>();
  mine->owner = id_;
  mine->epoch = theirs.epoch;
  mine->num_ranks = theirs.num_ranks;
  mine->num_experts = theirs.num_experts;
  mine->num_topk = theirs.num_topk;
  mine->layout = theirs.layout;
  mine->padding = theirs.padding;
  mine->expert_alignment = theirs.expert_alignment;
  mine->num_tokens = theirs.num_tokens;
  mine->num_recv_tokens = theirs.num_recv_tokens;
  mine->num_recv_rows = theirs.num_recv_rows;
  mine->max_rows = theirs.max_rows;
  mine->is_token_in_rank = copies_.to_device(theirs.is_token_in_rank);
  mine->rank_prefix_matrix = copies_.to_device(theirs.rank_prefix_matrix);
  mine->recv_tokens_per_expert = copies_.to_device(theirs.recv_tokens_per_expert);
  mine->recv_src_token = copies_.to_device(theirs.recv_src_token);
  mine->recv_expert_row = copies_.to_device(theirs.recv_expert_row);
  mine->on_host = on_host;
  return std::make_shared<const Routing>(std::move(mine));
}

CombineResult StagedBackend::combine(const CombineConfig& config) {
  const DeviceScope device(device_);
  copies_.begin(config.stream);
  // In symmetric memory of the host, where others read it in place.
  const Tensor x = host_->empty(config.x.dtype, {config.x.shape[0], config.x.shape[1]});
  copies_.copy_to_host(x.view, config.x);
  const std::optional<Tensor> weights = copies_.to_host(config.topk_weights);
  const std::optional<Tensor> bias_0 = copies_.to_host(config.bias_0);
  const std::optional<Tensor> bias_1 = copies_.to_host(config.bias_1);
  copies_.await();
  const CombineResult on_host = host_->combine({.x = x.view,
                                                .topk_weights = maybe_view(weights),
                                                .bias_0 = maybe_view(bias_0),
                                                .bias_1 = maybe_view(bias_1),
                                                .handle = config.handle->state().on_host});
  CombineResult result;
  if (config.out) {
    result.combined_x.view = *config.out;
    copies_.copy_to(*config.out, on_host.combined_x.view);
  } else {
    result.combined_x = copies_.to_device(on_host.combined_x);
  }
  result.combined_topk_weights = copies_.to_device(on_host.combined_topk_weights);
  result.event = copies_.end(config.stream);
  return result;
}

Tensor StagedBackend::empty(DType dtype, std::initializer_list<std::int64_t> shape) {
  const DeviceScope device(device_);
  Tensor tensor = copies_.make(TensorView::contiguous(nullptr, dtype, shape));
  copies_.await();  // usable on any stream
  return tensor;
}

void StagedBackend::barrier() { host_->barrier(); }

}  // namespace moelink
