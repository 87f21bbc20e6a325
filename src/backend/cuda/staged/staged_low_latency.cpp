// Low latency operations by way of the host.
#include <utility>

#include "backend/cuda/staged/staged_backend.hpp"
#include "protocol/low_latency_layout.hpp"

namespace moelink {
LowLatencyDispatchResult StagedBackend::low_latency_dispatch(
    const LowLatencyDispatchConfig& config) {
  const DeviceScope device(device_);
  copies_.begin(config.stream);
  const Tensor x = copies_.to_host(config.x);
  const Tensor topk_idx = copies_.to_host(config.topk_idx);
  const std::optional<Tensor> weights = copies_.to_host(config.topk_weights);
  const std::optional<Tensor> stats = copies_.to_host(config.recv_stats);
  const std::optional<Tensor> cost = copies_.to_host(config.wait_cost);
  copies_.await();
  LowLatencyDispatchConfig call = config;
  call.x = x.view;
  call.topk_idx = topk_idx.view;
  call.topk_weights = maybe_view(weights);
  call.recv_stats = maybe_view(stats);
  call.wait_cost = maybe_view(cost);
  call.receive = ReceivePhase::kByHook;
  call.stream = {};
  LowLatencyDispatchResult on_host = host_->low_latency_dispatch(call);

  LowLatencyDispatchResult result;
  result.recv_x = copies_.make(on_host.recv_x.view);
  if (on_host.recv_scales) result.recv_scales = copies_.make(on_host.recv_scales->view);
  if (on_host.recv_topk_idx) result.recv_topk_idx = copies_.make(on_host.recv_topk_idx->view);
  if (on_host.recv_topk_weights)
    result.recv_topk_weights = copies_.make(on_host.recv_topk_weights->view);
  result.handle = handle_for(on_host.handle);
  result.recv_count = result.handle->recv_count;
  // Everything that the host's side reads or writes until then is held by it.
  const auto receive = [this, device_number = device_, x, topk_idx, weights, stats, cost, config,
                        on_host, result](const StreamOptions& options) {
    const DeviceScope scope(device_number);
    on_host.hook();  // throws if this buffer has gone
    copies_.begin(options);
    copy_received(result, on_host);
    if (stats) copies_.copy_to(*config.recv_stats, stats->view);
    if (cost) copies_.copy_to(*config.wait_cost, cost->view);
    return copies_.end(options);
  };
  if (config.receive == ReceivePhase::kByHook) {
    copies_.end(config.stream);
    result.hook = [receive, options = StreamOptions{.cuda_stream = config.stream.cuda_stream}] {
      receive(options);
    };
    return result;
  }
  result.event = receive(config.stream);
  return result;
}

void StagedBackend::copy_received(const LowLatencyDispatchResult& to,
                                  const LowLatencyDispatchResult& from) {
  const auto copy = [this](const std::optional<Tensor>& device, const std::optional<Tensor>& host) {
    if (host && host->defined()) copies_.copy_to(device->view, host->view);
  };
  copy_valid_rows(to.recv_x, from);
  copy(to.recv_scales, from.recv_scales);
  copy(to.recv_topk_idx, from.recv_topk_idx);
  copy(to.recv_topk_weights, from.recv_topk_weights);
  copy(to.handle->src_info, from.handle->src_info);
  copy(to.handle->layout_range, from.handle->layout_range);
  copy(to.handle->src_topk, from.handle->src_topk);
  copy(to.handle->src_weight, from.handle->src_weight);
  copy(to.handle->recv_count, from.handle->recv_count);
}

std::shared_ptr<const LowLatencyRouting> StagedBackend::handle_for(
    const std::shared_ptr<const LowLatencyRouting>& on_host) {
  auto mine = std::make_shared<LowLatencyRouting>(*on_host);
  mine->owner = id_;
  for (Tensor* const tensor : {&mine->src_info, &mine->layout_range, &mine->src_topk,
                               &mine->src_weight, &mine->recv_count}) {
    if (tensor->defined()) *tensor = copies_.make(tensor->view);
  }
  mine->on_host = on_host;
  return mine;
}

void StagedBackend::copy_valid_rows(const Tensor& device, const LowLatencyDispatchResult& on_host) {
  const TensorView& rows = on_host.recv_x.view;
  const auto row_bytes = static_cast<std::size_t>(rows.shape[2]) * dtype_size(rows.dtype);
  const auto group_bytes = static_cast<std::size_t>(rows.shape[1]) * row_bytes;
  const auto* const counts = on_host.handle->recv_count.view.as<std::int32_t>();
  for (std::int64_t i = 0; i < rows.shape[0]; ++i) {
    const std::size_t offset = static_cast<std::size_t>(i) * group_bytes;
    copies_.copy_rows_to(device.view.as<std::byte>() + offset, rows.as<std::byte>() + offset,
                         static_cast<std::size_t>(counts[i]) * row_bytes);
  }
}

LowLatencyCombineResult StagedBackend::low_latency_combine(const LowLatencyCombineConfig& config) {
  const DeviceScope device(device_);
  copies_.begin(config.stream);
  const TensorView& rows =
      config.input == CombineInput::kNextArea ? combine_buffer_.view : config.x;
  const Tensor x = copies_.to_host(rows);
  const Tensor topk_idx = copies_.to_host(config.topk_idx);
  const Tensor weights = copies_.to_host(config.topk_weights);
  const std::optional<Tensor> cost = copies_.to_host(config.wait_cost);
  copies_.await();
  LowLatencyCombineConfig call = config;
  call.x = x.view;
  call.topk_idx = topk_idx.view;
  call.topk_weights = weights.view;
  call.wait_cost = maybe_view(cost);
  call.handle = config.handle->on_host;
  call.input = CombineInput::kTensor;
  call.out.reset();
  call.receive = ReceivePhase::kByHook;
  call.stream = {};
  LowLatencyCombineResult on_host = host_->low_latency_combine(call);
  LowLatencyCombineResult result;
  if (config.out) {
    result.combined_x.view = *config.out;
  } else {
    result.combined_x = copies_.make(on_host.combined_x.view);
  }
  const auto receive = [this, device_number = device_, x, topk_idx, weights, cost, config, on_host,
                        result](const StreamOptions& options) {
    const DeviceScope scope(device_number);
    on_host.hook();  // throws if this buffer has gone
    copies_.begin(options);
    copies_.copy_to(result.combined_x.view, on_host.combined_x.view);
    if (cost) copies_.copy_to(*config.wait_cost, cost->view);
    return copies_.end(options);
  };
  if (config.receive == ReceivePhase::kByHook) {
    copies_.end(config.stream);
    result.hook = [receive, options = StreamOptions{.cuda_stream = config.stream.cuda_stream}] {
      receive(options);
    };
    return result;
  }
  result.event = receive(config.stream);
  return result;
}

Tensor StagedBackend::low_latency_combine_buffer(const LowLatencyRouting& handle) {
  const DeviceScope device(device_);
  const Tensor shape = host_->low_latency_combine_buffer(*handle.on_host);
  combine_buffer_ = copies_.make(shape.view);
  copies_.await();
  return combine_buffer_;
}

}  // namespace moelink
