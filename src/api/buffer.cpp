// The facade: checks arguments, then hands them to the backend.
#include "moelink/buffer.hpp"

#include "api/validate.hpp"
#include "backend/backend.hpp"
#include "backend/routing_state.hpp"
#include "protocol/low_latency_layout.hpp"
#include "symm/arena.hpp"

namespace moelink {
namespace {

HandleOrigin origin_of(const Backend& backend, const std::shared_ptr<const Routing>& handle) {
  return handle && backend.owns(handle->state().owner) ? HandleOrigin::kOwn
                                                       : HandleOrigin::kForeign;
}

HandleOrigin origin_of(const Backend& backend,
                       const std::shared_ptr<const LowLatencyRouting>& handle) {
  return handle && backend.owns(handle->owner) ? HandleOrigin::kOwn : HandleOrigin::kForeign;
}

}  // namespace

Buffer::Buffer(Group group, const BufferConfig& config)
    : group_(std::move(group)), config_(config) {
  validate(config_, group_);
  backend_ = config_.device.kind == DeviceKind::kCuda ? make_cuda_backend(group_, config_)
                                                      : make_cpu_backend(group_, config_);
}

Buffer::~Buffer() = default;
Buffer::Buffer(Buffer&&) noexcept = default;
Buffer& Buffer::operator=(Buffer&&) noexcept = default;

LayoutResult Buffer::query_layout(const LayoutConfig& config) const {
  validate(config, config_, group_);
  return backend_->query_layout(config);
}

DispatchResult Buffer::dispatch(const DispatchConfig& config) {
  validate(config, config_, group_);
  return backend_->dispatch(config);
}

DispatchResult Buffer::dispatch(const CachedDispatchConfig& config) {
  validate(config, origin_of(*backend_, config.handle), config_, group_);
  return backend_->dispatch(config);
}

CombineResult Buffer::combine(const CombineConfig& config) {
  validate(config, origin_of(*backend_, config.handle), group_);
  return backend_->combine(config);
}

LowLatencyDispatchResult Buffer::low_latency_dispatch(const LowLatencyDispatchConfig& config) {
  validate(config, config_, group_);
  return backend_->low_latency_dispatch(config);
}

LowLatencyCombineResult Buffer::low_latency_combine(const LowLatencyCombineConfig& config) {
  validate(config, origin_of(*backend_, config.handle), group_);
  return backend_->low_latency_combine(config);
}

Tensor Buffer::low_latency_combine_buffer(const std::shared_ptr<const LowLatencyRouting>& handle) {
  validate_handle(handle, origin_of(*backend_, handle), group_);
  return backend_->low_latency_combine_buffer(*handle);
}

void Buffer::clean_low_latency() { backend_->clean_low_latency(); }

std::size_t Buffer::low_latency_size_hint(int num_max_tokens_per_rank, std::int64_t hidden,
                                          int num_ranks, int num_topk) {
  const LowLatencyArea area{num_ranks, num_max_tokens_per_rank, num_topk,
                            static_cast<std::size_t>(hidden)};
  return arena_size_class(area.total_bytes());
}

void Buffer::mask_rank(Rank rank) {
  validate_peer(rank, group_);
  backend_->set_mask(rank, Mask::kSet);
}

void Buffer::unmask_rank(Rank rank) {
  validate_peer(rank, group_);
  backend_->set_mask(rank, Mask::kClear);
}

bool Buffer::is_masked(Rank rank) const {
  validate_peer(rank, group_);
  return backend_->is_masked(rank);
}

Tensor Buffer::empty(DType dtype, std::initializer_list<std::int64_t> shape) {
  return backend_->empty(dtype, shape);
}

void Buffer::barrier() { backend_->barrier(); }

void Buffer::close() { backend_->close(); }

std::vector<StageTime> Buffer::last_stage_times() const { return backend_->last_stage_times(); }

NetworkStatistics Buffer::network_statistics() const { return backend_->network_statistics(); }

MemoryStatistics Buffer::memory_statistics() const { return backend_->memory_statistics(); }

}  // namespace moelink
