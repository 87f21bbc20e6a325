// High-throughput combine on the GPU.
#pragma once

#include <memory>
#include <vector>

#include "backend/cuda/cuda_context.hpp"
#include "backend/routing_state.hpp"
#include "kernels/combine/params.hpp"
#include "moelink/results.hpp"

namespace moelink {

// One combine; run() once. It never waits for the GPU.
class CudaCombine {
 public:
  CudaCombine(CudaContext& context, const CombineConfig& config);

  CombineResult run();

 private:
  void check_tensors() const;
  kernels::CombineParams params() const;
  // Where peers read the rows: in place, or in a ring that the kernel fills.
  void publish_rows(kernels::CombineParams& launched, cudaStream_t stream);
  WireSpan publish_weights(cudaStream_t stream);
  WireSpan span_of(const void* data, std::size_t bytes) const;

  CudaContext& context_;
  CombineConfig config_;
  const RoutingState& state_;
  std::size_t row_bytes_;
  CombineResult result_;
  KeptMemory::Blocks published_;  // what peers read; they have done so when the kernels end
};

}  // namespace moelink
