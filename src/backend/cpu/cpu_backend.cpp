// Runs operations on the stream, and breaks the buffer when ranks fall out of step.
#include "backend/cpu/cpu_backend.hpp"

#include "backend/cpu/arena_tensor.hpp"
#include "backend/cpu/network/low_latency_courier.hpp"
#include "backend/cpu/open_context.hpp"
#include "base/check.hpp"
#include "base/log.hpp"
#include "base/trace_scope.hpp"
#include "moelink/routing.hpp"

namespace moelink {

std::unique_ptr<Backend> make_cpu_backend(const Group& group, const BufferConfig& config) {
  return std::make_unique<CpuBackend>(group, config);
}

CpuBackend::CpuBackend(const Group& group, const BufferConfig& config)
    : group_(group), context_(open_cpu_context(group, config)) {
  context_->low_latency = &low_latency_;
  if (!context_->network) return;
  context_->courier = std::make_unique<LowLatencyCourier>(*context_, low_latency_);
  context_->remote->connect(*context_->courier);
}

CpuBackend::~CpuBackend() {
  context_->stream.run([] {});  // finishes queued calls, for which peers may be waiting
  if (phase_.phase() == BufferPhase::Phase::kOpen) {
    context_->signals->raise("its buffer was destroyed without close()",
                             context_->completed.next());
  }
  context_->control->memory().announce_departure();
}

void CpuBackend::guarded(Operation operation, const std::function<void()>& step) {
  phase_.require_open(operation, context_->rank);
  try {
    step();
  } catch (const Error& error) {
    // Errors of arguments arise before anything is sent or alike at all ranks: nothing is broken.
    if (error.code() != ErrorCode::kInvalidArgument) break_buffer(operation, error.what());
    context_->completed = context_->epoch;
    throw;
  } catch (const std::exception& error) {
    break_buffer(operation, error.what());
    throw;
  }
}

void CpuBackend::break_buffer(Operation operation, const std::string& reason) {
  if (!phase_.break_open(operation, context_->rank, reason)) return;
  context_->signals->raise(reason, context_->completed.next());
}

LayoutResult CpuBackend::query_layout(const LayoutConfig& config) {
  return moelink::query_layout(TopkList(config.topk_idx), config.num_experts, context_->topology,
                               context_->rank);
}

DispatchResult CpuBackend::dispatch(const DispatchConfig& config) {
  return run_dispatch(DispatchOperation::make(*context_, config), nullptr, config.stream);
}

DispatchResult CpuBackend::dispatch(const CachedDispatchConfig& config) {
  return run_dispatch(DispatchOperation::make(*context_, config), config.handle, config.stream);
}

DispatchResult CpuBackend::run_dispatch(const std::shared_ptr<DispatchOperation>& operation,
                                        std::shared_ptr<const Routing> handle,
                                        const StreamOptions& options) {
  const Operation kind = handle ? Operation::kCachedDispatch : Operation::kDispatch;
  if (!handle) handle = std::make_shared<const Routing>(operation->state());
  const auto step = [this, kind, operation](void (DispatchOperation::*method)()) {
    guarded(kind, [&] { (operation.get()->*method)(); });
  };
  const auto begin = [step] { step(&DispatchOperation::begin); };
  const auto finish = [step] { step(&DispatchOperation::finish); };
  DispatchResult result;
  if (operation->has_known_size()) operation->reserve();
  if (options.completion == Completion::kSync) {
    context_->stream.run([&] {
      begin();
      finish();
    });
    result = operation->result();
  } else if (operation->has_known_size()) {
    result = operation->result();
    result.event = context_->stream.enqueue([begin, finish] {
      begin();
      finish();
    });
  } else {
    context_->stream.run(begin);
    result = operation->result();
    result.event = context_->stream.enqueue(finish);
  }
  result.handle = std::move(handle);
  return result;
}

CombineResult CpuBackend::combine(const CombineConfig& config) {
  const auto operation = std::make_shared<CombineOperation>(*context_, config);
  CombineResult result = operation->result();
  const auto step = [this, operation] { guarded(Operation::kCombine, [&] { operation->run(); }); };
  if (config.stream.completion == Completion::kSync) {
    context_->stream.run(step);
  } else {
    result.event = context_->stream.enqueue(step);
  }
  return result;
}

Tensor CpuBackend::empty(DType dtype, std::initializer_list<std::int64_t> shape) {
  return make_arena_tensor(*context_->arena, dtype, shape);
}

void CpuBackend::barrier() {
  context_->stream.run([this] {
    guarded(Operation::kBarrier, [this] {
      ExchangeBlock block{};
      block.digest.set(DigestField::kOperation, static_cast<std::int64_t>(Operation::kBarrier));
      exchange_calls(*context_, Operation::kBarrier, block, {});
      context_->completed = context_->epoch;
    });
  });
}

void CpuBackend::close() {
  const BufferPhase::Phase before = phase_.phase();
  if (before == BufferPhase::Phase::kClosed) return;
  if (before == BufferPhase::Phase::kOpen) barrier();
  if (before == BufferPhase::Phase::kOpen && context_->network) leave_network();
  phase_.close();
  context_->control->memory().announce_departure();
}

// A connection that is closed may take with it what a slower peer has not read yet.
void CpuBackend::leave_network() {
  context_->stream.run([this] { context_->remote->flush(); });
  if (context_->signals->masks().any()) return;  // somebody will not come
  try {
    group_.bootstrap().barrier("leaving the network", Deadline::after(context_->timeout));
  } catch (const Error& error) {
    log(LogLevel::kDebug, "rank {} leaves the network alone: {}", context_->rank.value(),
        error.what());
  }
}

NetworkStatistics CpuBackend::network_statistics() const {
  NetworkStatistics statistics;
  context_->stream.run([&] {
    if (context_->network) statistics = context_->network->statistics();
  });
  return statistics;
}

MemoryStatistics CpuBackend::memory_statistics() const {
  const ArenaStatistics arena = context_->arena->statistics();
  MemoryStatistics statistics;
  statistics.control_bytes = align_up(context_->control->layout().total_bytes(), std::size_t{4096});
  statistics.symmetric_bytes = statistics.control_bytes + arena.high_water_bytes;
  statistics.live_bytes = arena.live_bytes;
  statistics.peak_live_bytes = arena.peak_live_bytes;
  statistics.capacity_bytes = arena.capacity_bytes;
  statistics.num_window_misses = context_->num_window_misses;
  statistics.num_staged_combines = context_->num_staged_combines;
  return statistics;
}

}  // namespace moelink
