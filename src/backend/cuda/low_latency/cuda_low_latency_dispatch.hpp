// Low latency dispatch on the GPU.
#pragma once

#include <memory>

#include "backend/cuda/cuda_context.hpp"
#include "kernels/low_latency/params.hpp"

namespace moelink {

// One dispatch: launch() its halves, together or one after the other.
class CudaLowLatencyDispatch {
 public:
  static constexpr Operation kOperation = Operation::kLowLatencyDispatch;

  CudaLowLatencyDispatch(CudaContext& context, const LowLatencyDispatchConfig& config);

  // Empty tensors before the first launch().
  LowLatencyDispatchResult& result() { return result_; }
  void launch(kernels::LowLatencyPhase phase, cudaStream_t stream);
  // Before the first launch(): checks, and everything that may wait for peers.
  void prepare();
  std::uint64_t number() const { return number_; }

 private:
  void check_tensors() const;
  void make_tensors();
  void make_rows();
  kernels::LowLatencyDispatchParams params() const;

  CudaContext& context_;
  LowLatencyDispatchConfig config_;
  CudaOutstandingSlot slot_;
  std::uint64_t number_ = 0;
  std::shared_ptr<LowLatencyRouting> routing_;
  std::shared_ptr<CudaLowLatencyRouting> memory_;
  LowLatencyDispatchResult result_;
};

}  // namespace moelink
