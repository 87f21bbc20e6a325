// The CUDA backend: ranks have GPUs, or shares of one, that reach each other's memory.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "backend/buffer_phase.hpp"
#include "backend/cuda/cuda_context.hpp"
#include "backend/dispatch_call.hpp"

namespace moelink {

class CudaBackend final : public Backend {
 public:
  CudaBackend(const Group& group, const BufferConfig& config);
  ~CudaBackend() override;

  LayoutResult query_layout(const LayoutConfig& config) override;
  DispatchResult dispatch(const DispatchConfig& config) override;
  DispatchResult dispatch(const CachedDispatchConfig& config) override;
  CombineResult combine(const CombineConfig& config) override;
  LowLatencyDispatchResult low_latency_dispatch(const LowLatencyDispatchConfig& config) override;
  LowLatencyCombineResult low_latency_combine(const LowLatencyCombineConfig& config) override;
  Tensor low_latency_combine_buffer(const LowLatencyRouting& handle) override;
  void clean_low_latency() override;
  void set_mask(Rank rank, Mask mask) override;

  bool is_masked(Rank rank) const override;
  Tensor empty(DType dtype, std::initializer_list<std::int64_t> shape) override;
  void barrier() override;
  void close() override;
  bool owns(std::uint64_t owner) const override { return owner == context_->id; }
  MemoryStatistics memory_statistics() const override;
  std::vector<StageTime> last_stage_times() const override;

 private:
  // Runs one operation with the device current. Errors but those of arguments break the buffer.
  void guarded(Operation operation, const std::function<void()>& step);
  DispatchResult run_dispatch(DispatchCall call, std::shared_ptr<const Routing> handle);
  // Enqueues something in the order of operations.
  Event launch_on(const StreamOptions& options, const std::function<void(cudaStream_t)>& launch);
  template <class LowLatencyOperation, class Config>
  auto run_low_latency(const Config& config);
  void note_received(std::uint64_t number);
  // High-throughput calls would wait for a masked rank until their deadline.
  void require_no_masks(Operation operation) const;
  void require_receivable(Operation operation, std::uint64_t number) const;
  // The end of a call: may block (see StreamUse::kOwn), and throws what is known to have failed.
  void await_results(const StreamOptions& options) const;
  // Tells the peers, as far as they still listen, that this rank takes no further part.
  void tell_departure(const std::string& reason) noexcept;

  BufferPhase phase_;
  std::unique_ptr<CudaContext> context_;
  // Hooks hold it weakly: they must not be called once the buffer has gone.
  std::shared_ptr<CudaBackend*> self_ = std::make_shared<CudaBackend*>(this);
};

}  // namespace moelink
