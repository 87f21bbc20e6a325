// One rank of the low latency benchmark: its tensors, its operations, and the check of its results.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/cuda/owners.hpp"
#include "low_latency_inputs.hpp"
#include "moelink/moelink.hpp"

namespace moelink::bench {

// All calls are collective.
class LowLatencyBenchRank {
 public:
  enum class Timed { kDispatch, kCombine, kPair };
  struct Times {
    std::vector<double> microseconds;  // per operation (of a pair: of both), of each launch
    bool verified = false;             // the last results in the graph
  };

  LowLatencyBenchRank(Group group, const LowLatencyCase& one);

  // Carries both operations out once and compares every byte in use with what it should be.
  bool verify();
  // GPU time of a CUDA graph of kOperationsPerGraph operations, between events.
  Times time_in_graph(Timed what, int num_launches);

 private:
  static constexpr int kWarmups = 10;
  static constexpr int kOperationsPerGraph = 20;

  void make_inputs();
  void make_returned_rows();
  TensorView received_shape(void* data) const;
  LowLatencyDispatchResult dispatch();
  Tensor combine(const LowLatencyDispatchResult& received);
  // Holds the last results only: earlier ones give their memory to later operations of the graph.
  void capture(Timed what);
  std::vector<double> launch(cudaGraphExec_t graph, int num_launches);
  bool rows_are_right(const LowLatencyDispatchResult& received) const;
  bool group_is_right(const LowLatencyDispatchResult& received, std::size_t group) const;
  bool sums_are_right(const Tensor& combined) const;

  LowLatencyCase case_;
  Group group_;
  std::vector<std::vector<RowOrigin>> origins_;
  std::vector<QuantizedRows> quantized_;           // of every rank, with FP8
  std::vector<std::vector<std::uint16_t>> plain_;  // of every rank
  std::unique_ptr<Buffer> buffer_;
  CudaStream stream_;
  std::shared_ptr<std::byte> x_;
  std::shared_ptr<std::byte> topk_idx_;
  std::shared_ptr<std::byte> topk_weights_;
  std::shared_ptr<std::byte> returned_;
  LowLatencyDispatchResult received_;  // what combine answers
  LowLatencyDispatchResult last_dispatch_;
  Tensor last_combine_;
};

}  // namespace moelink::bench
