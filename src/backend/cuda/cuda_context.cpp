// Memory in stream order.
#include "backend/cuda/cuda_context.hpp"

#include <algorithm>

#include "protocol/limits.hpp"

namespace moelink {

kernels::Report* CudaContext::report() const {
  return reinterpret_cast<kernels::Report*>(pinned.get() +
                                            align_up(sizeof(HostMailbox), kPartAlignment));
}

std::shared_ptr<void> CudaContext::in_stream_order(std::shared_ptr<void> block) const {
  void* const address = block.get();
  const std::weak_ptr<StreamOrder> weak = order;
  return {address, [block = std::move(block), weak](void*) mutable {
            if (const std::shared_ptr<StreamOrder> alive = weak.lock()) alive->note_release();
            block.reset();
          }};
}

std::shared_ptr<void> CudaContext::allocate(std::size_t bytes) const {
  if (is_captured()) return captured->allocate(*arena, capture, bytes);
  return in_stream_order(arena->allocate(bytes));
}

std::byte* CudaContext::staging_ring(std::size_t bytes, cudaStream_t stream) {
  if (ring_bytes < bytes) {
    std::shared_ptr<void> larger = in_stream_order(arena->allocate(bytes));
    if (ring) kept.keep({std::move(ring)}, stream);
    ring = std::move(larger);
    ring_bytes = bytes;
  }
  if (is_captured()) captured->retain(ring);
  return static_cast<std::byte*>(ring.get());
}

Tensor CudaContext::make_tensor(DType dtype, std::initializer_list<std::int64_t> shape) const {
  Tensor tensor;
  tensor.view = TensorView::contiguous(nullptr, dtype, shape);
  tensor.storage = allocate(tensor.view.num_bytes());
  tensor.view.data = tensor.storage.get();
  return tensor;
}

device::LaunchLimits CudaContext::limits_for(const StreamOptions& options) const {
  device::LaunchLimits chosen = limits;
  if (options.num_workers > 0) {
    chosen.num_waiting_blocks = std::min(options.num_workers, limits.num_free_blocks);
  }
  return chosen;
}

}  // namespace moelink
