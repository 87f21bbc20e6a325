// The low latency calls of the CUDA backend: which half runs when, and on which stream.
#include <algorithm>
#include <limits>
#include <memory>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/low_latency/cuda_low_latency_combine.hpp"
#include "backend/cuda/low_latency/cuda_low_latency_dispatch.hpp"
#include "backend/single_shot.hpp"
#include "base/check.hpp"
#include "base/cuda/check.hpp"

namespace moelink {
namespace {

using kernels::LowLatencyPhase;

// Faults of low latency operations come after all that has been counted by exchanges.
constexpr Epoch kAnyFault(std::numeric_limits<std::uint64_t>::max());

}  // namespace

Event CudaBackend::launch_on(const StreamOptions& options,
                             const std::function<void(cudaStream_t)>& launch) {
  cudaStream_t const stream = context_->order->begin(options);
  launch(stream);
  const Event done = context_->order->end(options, context_->faults, kAnyFault);
  await_results(options);
  return done;
}

template <class LowLatencyOperation, class Config>
auto CudaBackend::run_low_latency(const Config& config) {
  constexpr Operation kOperation = LowLatencyOperation::kOperation;
  std::shared_ptr<LowLatencyOperation> operation;
  const bool by_hook = config.receive == ReceivePhase::kByHook;
  guarded(kOperation, [&] {
    operation = std::make_shared<LowLatencyOperation>(*context_, config);
    operation->prepare();
    const LowLatencyPhase phase = by_hook ? LowLatencyPhase::kSend : LowLatencyPhase::kBoth;
    operation->result().event =
        launch_on(config.stream, [&](cudaStream_t stream) { operation->launch(phase, stream); });
    if (!by_hook) note_received(operation->number());
  });
  auto result = operation->result();
  if (!by_hook) return result;
  StreamOptions options = config.stream;
  options.previous_event = {};
  const auto receive = [alive = std::weak_ptr(self_), operation, options] {
    const std::shared_ptr<CudaBackend*> self = alive.lock();
    if (!self) {
      fail(ErrorCode::kInvalidArgument, "{}: the hook was called after its buffer was closed",
           operation_name(kOperation));
    }
    CudaBackend& backend = **self;
    backend.guarded(kOperation, [&] {
      backend.require_receivable(kOperation, operation->number());
      backend.launch_on(options, [&](cudaStream_t stream) {
        operation->launch(LowLatencyPhase::kReceive, stream);
      });
      backend.note_received(operation->number());
    });
  };
  auto hook = std::make_shared<SingleShot>(kOperation, context_->rank, receive);
  result.hook = [hook] { (*hook)(); };
  return result;
}

void CudaBackend::note_received(std::uint64_t number) {
  context_->low_latency.received[number % kNumLowLatencyHalves] = number;
}

void CudaBackend::require_receivable(Operation operation, std::uint64_t number) const {
  if (number > context_->low_latency.num_void) return;
  fail(ErrorCode::kInvalidArgument,
       "{} (rank {}): its memory has been given up since it was sent, by clean_low_latency or "
       "another shape: call it again",
       operation_name(operation), context_->rank.value());
}

LowLatencyDispatchResult CudaBackend::low_latency_dispatch(const LowLatencyDispatchConfig& config) {
  return run_low_latency<CudaLowLatencyDispatch>(config);
}

LowLatencyCombineResult CudaBackend::low_latency_combine(const LowLatencyCombineConfig& config) {
  return run_low_latency<CudaLowLatencyCombine>(config);
}

Tensor CudaBackend::low_latency_combine_buffer(const LowLatencyRouting& handle) {
  const DeviceScope device(context_->device);
  const auto [groups, rows] = OutputExtents::make(
      handle.layout, context_->num_ranks(), handle.num_experts, handle.num_max_tokens_per_rank);
  CudaLowLatency& low_latency = context_->low_latency;
  Tensor& area = low_latency.combine_area;
  const bool fits = area.defined() && area.view.shape[0] == groups && area.view.shape[1] == rows &&
                    area.view.shape[2] == handle.hidden;
  context_->capture = 0;  // kept here, whatever it serves
  if (!fits) area = context_->make_tensor(DType::kBFloat16, {groups, rows, handle.hidden});
  low_latency.combine_area_for = low_latency.num_sent + 1;
  return area;
}

void CudaBackend::clean_low_latency() {
  guarded(Operation::kBarrier, [this] { clean_line_area(*context_); });
}

void CudaBackend::set_mask(Rank rank, Mask mask) {
  const DeviceScope device(context_->device);
  std::uint32_t* const word = context_->low_latency.masked + rank.index();
  const int value = mask == Mask::kSet ? 1 : 0;
  std::vector<bool>& known = context_->low_latency.known_masks;
  known.resize(static_cast<std::size_t>(context_->num_ranks()));
  known[rank.index()] = mask == Mask::kSet;
  launch_on(StreamOptions{.completion = Completion::kAsync}, [&](cudaStream_t stream) {
    // The lowest byte of a word that is 0 or 1.
    check_cuda(cudaMemsetAsync(word, value, 1, stream), "mask a rank");
  });
}

bool CudaBackend::is_masked(Rank rank) const {
  const DeviceScope device(context_->device);
  context_->order->synchronize();
  const std::vector<std::uint32_t> masks = context_->low_latency.read_masks(context_->num_ranks());
  context_->low_latency.known_masks.assign(masks.begin(), masks.end());
  return masks[rank.index()] != 0;
}

void CudaBackend::require_no_masks(Operation operation) const {
  const std::vector<bool>& known = context_->low_latency.known_masks;
  const auto masked = std::ranges::find(known, true);
  if (masked == known.end()) return;
  fail(ErrorCode::kUnsupported,
       "{} (rank {}): rank {} is masked, which only low latency calls take into account on CUDA: "
       "unmask it, or make a new group without it",
       operation_name(operation), context_->rank.value(), masked - known.begin());
}

}  // namespace moelink
