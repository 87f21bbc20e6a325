// The facade: checks arguments, then hands them to the backend.
#include "moelink/buffer.hpp"

#include "api/validate.hpp"
#include "backend/backend.hpp"
#include "backend/cpu/route.hpp"

namespace moelink {
namespace {

HandleOrigin origin_of(const Backend& backend, const std::shared_ptr<const Routing>& handle) {
  return handle && backend.owns(*handle) ? HandleOrigin::kOwn : HandleOrigin::kForeign;
}

}  // namespace

Buffer::Buffer(Group group, const BufferConfig& config)
    : group_(std::move(group)), config_(config) {
  validate(config_, group_);
  backend_ = make_cpu_backend(group_, config_);
}

Buffer::~Buffer() = default;
Buffer::Buffer(Buffer&&) noexcept = default;
Buffer& Buffer::operator=(Buffer&&) noexcept = default;

LayoutResult Buffer::query_layout(const LayoutConfig& config) const {
  validate(config, config_, group_);
  return moelink::query_layout(TopkList(config.topk_idx), config.num_experts, group_.topology(),
                               group_.rank());
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

Tensor Buffer::empty(DType dtype, std::initializer_list<std::int64_t> shape) {
  return backend_->empty(dtype, shape);
}

void Buffer::barrier() { backend_->barrier(); }

void Buffer::close() { backend_->close(); }

MemoryStatistics Buffer::memory_statistics() const { return backend_->memory_statistics(); }

}  // namespace moelink
