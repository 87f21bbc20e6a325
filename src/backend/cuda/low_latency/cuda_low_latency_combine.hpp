// Low latency combine on the GPU.
#pragma once

#include "backend/cuda/cuda_context.hpp"
#include "kernels/low_latency/params.hpp"

namespace moelink {

// One combine: launch() its halves, together or one after the other.
class CudaLowLatencyCombine {
 public:
  static constexpr Operation kOperation = Operation::kLowLatencyCombine;

  CudaLowLatencyCombine(CudaContext& context, const LowLatencyCombineConfig& config);

  LowLatencyCombineResult& result() { return result_; }
  void launch(kernels::LowLatencyPhase phase, cudaStream_t stream);
  // Before the first launch(): checks, and everything that may wait for peers.
  void prepare();
  std::uint64_t number() const { return number_; }

 private:
  void check_tensors() const;
  void take_combine_area();
  bool is_one_row_per_rank() const;
  kernels::LowLatencyCombineParams params() const;

  CudaContext& context_;
  LowLatencyCombineConfig config_;
  CudaOutstandingSlot slot_;
  std::uint64_t number_ = 0;
  LowLatencyCombineResult result_;
};

}  // namespace moelink
