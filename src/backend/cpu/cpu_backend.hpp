// The CPU backend: ranks are processes or threads of one host, memory is shared.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/backend.hpp"
#include "backend/buffer_phase.hpp"
#include "backend/cpu/combine.hpp"
#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/dispatch.hpp"
#include "backend/cpu/low_latency/low_latency_context.hpp"

namespace moelink {

class CpuBackend final : public Backend {
 public:
  CpuBackend(const Group& group, const BufferConfig& config);
  ~CpuBackend() override;

  LayoutResult query_layout(const LayoutConfig& config) override;
  DispatchResult dispatch(const DispatchConfig& config) override;
  DispatchResult dispatch(const CachedDispatchConfig& config) override;
  CombineResult combine(const CombineConfig& config) override;
  Tensor empty(DType dtype, std::initializer_list<std::int64_t> shape) override;
  void barrier() override;
  void close() override;
  LowLatencyDispatchResult low_latency_dispatch(const LowLatencyDispatchConfig& config) override;
  LowLatencyCombineResult low_latency_combine(const LowLatencyCombineConfig& config) override;
  Tensor low_latency_combine_buffer(const LowLatencyRouting& handle) override;
  void clean_low_latency() override;
  void set_mask(Rank rank, Mask mask) override;
  bool is_masked(Rank rank) const override;
  bool owns(std::uint64_t owner) const override { return owner == context_->id; }
  MemoryStatistics memory_statistics() const override;
  NetworkStatistics network_statistics() const override;

 private:
  DispatchResult run_dispatch(const std::shared_ptr<DispatchOperation>& operation,
                              std::shared_ptr<const Routing> handle, const StreamOptions& options);
  template <class LowLatencyOperation, class Config>
  auto run_low_latency(Operation kind, const Config& config);
  // Runs a step of an operation. A failure that leaves the ranks out of step breaks the buffer: it
  // is told to the peers, and all later operations fail with it.
  void guarded(Operation operation, const std::function<void()>& step);
  void break_buffer(Operation operation, const std::string& reason);
  void leave_network();

  Group group_;
  BufferPhase phase_;
  // Hooks look whether it still exists: they may be called after the buffer has gone.
  std::shared_ptr<CpuBackend*> self_ = std::make_shared<CpuBackend*>(this);
  LowLatencyContext low_latency_;
  std::unique_ptr<CpuContext> context_;  // last: its stream finishes before the rest goes
};

}  // namespace moelink
