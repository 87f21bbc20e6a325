// Runs operations, and breaks the buffer when ranks fall out of step.
#include "backend/cuda/cuda_backend.hpp"

#include <array>
#include <cstring>

#include "backend/cuda/cuda_combine.hpp"
#include "backend/cuda/cuda_dispatch.hpp"
#include "backend/cuda/device_checks.hpp"
#include "backend/cuda/host_exchange.hpp"
#include "backend/cuda/staged/staged_backend.hpp"
#include "base/check.hpp"
#include "base/cuda/nvtx_range.hpp"
#include "base/log.hpp"
#include "base/trace_scope.hpp"
#include "kernels/layout/launch.hpp"
#include "moelink/routing.hpp"

namespace moelink {

std::unique_ptr<Backend> make_cuda_backend(const Group& group, const BufferConfig& config) {
  if (needs_staging(group, config)) return std::make_unique<StagedBackend>(group, config);
  return std::make_unique<CudaBackend>(group, config);
}

CudaBackend::CudaBackend(const Group& group, const BufferConfig& config)
    : context_(open_cuda_context(group, config)) {}

CudaBackend::~CudaBackend() {
  if (phase_.phase() == BufferPhase::Phase::kOpen)
    tell_departure("its buffer was destroyed without close()");
  self_.reset();
  context_->memory->announce_departure();
}

void CudaBackend::tell_departure(const std::string& reason) noexcept {
  try {
    const DeviceScope device(context_->device);
    context_->order->synchronize();  // what has been called is finished first
    FaultRecord record{};
    const std::size_t length = std::min(reason.size(), FaultRecord::kMaxText);
    std::memcpy(record.text, reason.data(), length);
    record.text_bytes = static_cast<std::uint32_t>(length);
    std::uint64_t completed = 0;
    check_cuda(cudaMemcpy(&completed, &context_->domain.local->epoch, sizeof(completed),
                          cudaMemcpyDeviceToHost),
               "read how far this rank has come");
    record.first_missed = Epoch(completed).next();
    std::byte* const place = context_->memory->local() + ControlLayout::fault_offset();
    check_cuda(cudaMemcpy(place, &record, sizeof(record), cudaMemcpyHostToDevice),
               "tell the peers of a fault");
    record.raised = 1;
    check_cuda(cudaMemcpy(place, &record.raised, sizeof(record.raised), cudaMemcpyHostToDevice),
               "tell the peers of a fault");
  } catch (const std::exception& error) {
    log(LogLevel::kWarning, "rank {}: {}", context_->rank.value(), error.what());
  }
}

void CudaBackend::guarded(Operation operation, const std::function<void()>& step) {
  phase_.require_open(operation, context_->rank);
  const DeviceScope device(context_->device);
  const NvtxRange range(operation_name(operation));
  try {
    context_->faults->throw_if_raised();
    step();
  } catch (const Error& error) {
    // Errors of arguments arise before anything is sent or alike at all ranks: nothing is broken,
    // unless a kernel has found them and later calls were under way already.
    const bool is_of_arguments =
        error.code() == ErrorCode::kInvalidArgument || error.code() == ErrorCode::kUnsupported;
    const bool harmless = is_of_arguments && !context_->faults->is_raised();
    if (!harmless) phase_.break_open(operation, context_->rank, error.what());
    throw;
  }
}

LayoutResult CudaBackend::query_layout(const LayoutConfig& config) {
  LayoutResult result;
  guarded(Operation::kQueryLayout, [&] {
    Violations violations(fmt::format("query_layout (rank {})", context_->rank.value()));
    require_on_device(violations, "topk_idx", config.topk_idx, context_->device,
                      dtype_size(config.topk_idx.dtype));
    violations.throw_if_any();
    const Topology& topology = context_->topology;
    kernels::LayoutParams params;
    params.topology = topology;
    params.num_tokens = config.topk_idx.shape[0];
    params.num_experts = config.num_experts;
    params.topk.ids = config.topk_idx.data;
    params.topk.num_topk = static_cast<std::int32_t>(config.topk_idx.shape[1]);
    params.topk.id_bytes = static_cast<std::int32_t>(dtype_size(config.topk_idx.dtype));
    const StreamOptions options{.cuda_stream = config.cuda_stream};
    context_->note_capture(options);
    cudaStream_t const stream = context_->order->begin(options);
    const auto zeros = [&](std::int64_t count) {
      Tensor tensor = context_->make_tensor(DType::kInt32, {count});
      check_cuda(cudaMemsetAsync(tensor.view.data, 0, tensor.view.num_bytes(), stream),
                 "clear counters");
      return tensor;
    };
    result.num_tokens_per_rank = zeros(topology.num_ranks);
    result.num_tokens_per_node = zeros(topology.num_nodes);
    result.num_tokens_per_expert = zeros(config.num_experts);
    result.is_token_in_rank =
        context_->make_tensor(DType::kBool, {params.num_tokens, topology.num_ranks});
    params.tokens_per_rank = result.num_tokens_per_rank.view.as<std::int32_t>();
    params.tokens_per_node = result.num_tokens_per_node.view.as<std::int32_t>();
    params.tokens_per_expert = result.num_tokens_per_expert.view.as<std::int32_t>();
    params.is_token_in_rank = result.is_token_in_rank.view.as<std::uint8_t>();
    if (context_->domain.stage_ends != nullptr) {  // it has no stages
      check_cuda(cudaMemsetAsync(context_->domain.stage_ends, 0, kNumStages * sizeof(std::uint64_t),
                                 stream),
                 "clear the stage clock");
    }
    kernels::launch_layout(params, context_->limits.num_free_blocks, stream);
    context_->order->end(options, context_->faults, context_->epoch);
    context_->order->await_results(options);
  });
  return result;
}

void CudaBackend::await_results(const StreamOptions& options) const {
  context_->order->await_results(options);
  context_->faults->throw_if_raised();
}

DispatchResult CudaBackend::dispatch(const DispatchConfig& config) {
  return run_dispatch(
      DispatchCall::make(context_->id, context_->rank, context_->num_ranks(), config), nullptr);
}

DispatchResult CudaBackend::dispatch(const CachedDispatchConfig& config) {
  return run_dispatch(DispatchCall::make(context_->rank, config), config.handle);
}

DispatchResult CudaBackend::run_dispatch(DispatchCall call, std::shared_ptr<const Routing> handle) {
  DispatchResult result;
  guarded(call.operation, [&] {
    require_no_masks(call.operation);
    const TraceScope scope(call.operation, Stage::kSend, context_->rank);
    const std::shared_ptr<RoutingState> state = call.state;
    const StreamOptions options = call.inputs.stream;
    result = CudaDispatch(*context_, std::move(call)).run();
    await_results(options);
    result.handle = handle ? std::move(handle) : std::make_shared<const Routing>(state);
  });
  return result;
}

CombineResult CudaBackend::combine(const CombineConfig& config) {
  CombineResult result;
  guarded(Operation::kCombine, [&] {
    require_no_masks(Operation::kCombine);
    const TraceScope scope(Operation::kCombine, Stage::kReduce, context_->rank);
    result = CudaCombine(*context_, config).run();
    await_results(config.stream);
  });
  return result;
}

Tensor CudaBackend::empty(DType dtype, std::initializer_list<std::int64_t> shape) {
  const DeviceScope device(context_->device);
  context_->capture = 0;  // the caller holds it as long as a graph may need it
  return context_->make_tensor(dtype, shape);
}

void CudaBackend::barrier() {
  guarded(Operation::kBarrier, [this] { exchange_on_host(*context_, Operation::kBarrier, {}); });
}

void CudaBackend::close() {
  const BufferPhase::Phase before = phase_.phase();
  if (before == BufferPhase::Phase::kClosed) return;
  if (before == BufferPhase::Phase::kOpen) barrier();
  phase_.close();
  self_.reset();
  context_->memory->announce_departure();
}

MemoryStatistics CudaBackend::memory_statistics() const {
  const ArenaStatistics arena = context_->arena->statistics();
  MemoryStatistics statistics;
  statistics.control_bytes = align_up(context_->layout.total_bytes(), std::size_t{4096});
  statistics.symmetric_bytes = context_->memory->size_bytes();
  statistics.live_bytes = arena.live_bytes;
  statistics.peak_live_bytes = arena.peak_live_bytes;
  statistics.capacity_bytes = arena.capacity_bytes;
  statistics.num_window_misses = context_->num_window_misses;
  statistics.num_staged_combines = context_->num_staged_combines;
  return statistics;
}

std::vector<StageTime> CudaBackend::last_stage_times() const {
  std::vector<StageTime> times;
  if (context_->domain.stage_ends == nullptr) return times;
  const DeviceScope device(context_->device);
  context_->order->synchronize();
  std::array<std::uint64_t, kNumStages> ends{};
  check_cuda(
      cudaMemcpy(ends.data(), context_->domain.stage_ends, sizeof(ends), cudaMemcpyDeviceToHost),
      "read the stage clock");
  // An operation passes through some stages only: what is older than its start is not its own.
  std::uint64_t before = ends[static_cast<std::size_t>(Stage::kRoute)];
  if (before == 0) return times;  // nothing has been timed
  for (std::size_t i = 1; i < ends.size(); ++i) {
    if (ends[i] < before) continue;
    times.push_back({static_cast<Stage>(i), static_cast<double>(ends[i] - before) / 1000.0});
    before = ends[i];
  }
  return times;
}

}  // namespace moelink
