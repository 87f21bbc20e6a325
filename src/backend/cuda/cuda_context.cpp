// Memory in stream order, and the texts of faults.
#include "backend/cuda/cuda_context.hpp"

#include <algorithm>

#include "base/check.hpp"
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
  return in_stream_order(arena->allocate(bytes));
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

std::string CudaContext::reason_of(Rank peer) const {
  FaultRecord record{};
  const std::byte* const place = memory->region(peer) + ControlLayout::fault_offset();
  const bool read = cudaMemcpyAsync(&record, place, sizeof(record), cudaMemcpyDeviceToHost,
                                    cudaStreamPerThread) == cudaSuccess &&
                    cudaStreamSynchronize(cudaStreamPerThread) == cudaSuccess;
  if (!read || record.text_bytes == 0 || record.text_bytes > FaultRecord::kMaxText) return {};
  return ": " + std::string(record.text, record.text_bytes);
}

void CudaContext::check_fault() const {
  const device::Fault& fault = mailbox().fault;
  if (std::atomic_ref(const_cast<std::uint32_t&>(fault.raised)).load(std::memory_order_acquire) ==
      0) {
    return;
  }
  const std::string where =
      fmt::format("{} (rank {}), stage {}: rank {}", operation_name(fault.operation), rank.value(),
                  stage_name(fault.stage), fault.peer);
  switch (fault.cause) {
    case device::FaultCause::kTimeout:
      break;
    case device::FaultCause::kRefused:
      fail(ErrorCode::kInternal,
           "{} (rank {}): the ranks' calls do not fit together: an argument differs between ranks, "
           "a "
           "selection is no expert, or num_worst_tokens is too small; the same calls without "
           "num_worst_tokens, or a new dispatch instead of a cached one, say which",
           operation_name(fault.operation), rank.value());
    case device::FaultCause::kPeerGaveUp:
      fail(ErrorCode::kPeerLost, "{} gave up{}", where, reason_of(Rank(fault.peer)));
    case device::FaultCause::kCancelled:
      fail(ErrorCode::kPeerLost, "{} has died", where);
  }
  const SignalValue expected(fault.expected);
  const SignalValue seen(fault.seen);
  fail(ErrorCode::kTimeout,
       "{} did not arrive within {} ms (expected operation {} step {}, seen operation {} step {})",
       where, timeout.count(), expected.epoch().value(), expected.progress(), seen.epoch().value(),
       seen.progress());
}

}  // namespace moelink
