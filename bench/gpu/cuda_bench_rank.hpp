// One rank of the GPU benchmark: its tensors, one operation, and the check of its results.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/cuda/owners.hpp"
#include "moelink/moelink.hpp"

namespace moelink::bench {

struct Case {
  enum class Kind { kDispatch, kCachedDispatch, kCombine, kCombineForeign };

  Kind kind = Kind::kDispatch;
  DType dtype = DType::kBFloat16;
  Layout layout = Layout::kCompact;
  std::int64_t tokens = 4096;
  std::int64_t hidden = 7168;
  int num_topk = 8;
  int num_experts = 256;
  int sms = 16;
  StageClock clock = StageClock::kOff;

  const char* operation_name() const;
  const char* dtype_label() const { return dtype == DType::kFloat8E4M3 ? "fp8" : "bf16"; }
  const char* layout_name() const {
    return layout == Layout::kCompact ? "compact" : "expert_major";
  }
  std::size_t row_bytes() const { return static_cast<std::size_t>(hidden) * dtype_size(dtype); }
};

class BenchRank {
 public:
  BenchRank(Group group, const Case& one);

  // Carries the operation out once and compares every byte with what it should be. Collective.
  bool verify();
  // Microseconds of each of kRepetitions operations, queued back to back. Collective.
  std::vector<double> time_operation();
  // The same inside a CUDA graph of kOperationsPerGraph operations, hence without the host's part.
  std::vector<double> time_in_graph();
  // "exchange 3.1, place 2.0, ...": of one operation, on its first block.
  std::string stages();
  // The same for bare copies by the copy engine: of what arrives from other GPUs, or on a single
  // GPU of all that arrives.
  std::vector<double> time_floor();

 private:
  static constexpr int kWarmups = 10;
  static constexpr int kRepetitions = 100;
  static constexpr int kOperationsPerGraph = 20;

  template <class Operation>
  std::vector<double> time(const Operation& operation);
  TensorView view(const std::shared_ptr<std::byte>& memory, DType dtype,
                  std::initializer_list<std::int64_t> shape) const;
  void make_inputs();
  DispatchConfig dispatch_config() const;
  // Returns what the operation has made: in a graph it must be held.
  std::shared_ptr<void> run_once();
  bool rows_are_right(const DispatchResult& received) const;
  bool sums_are_right(const CombineResult& combined) const;
  std::vector<std::byte> download(const Tensor& tensor) const;
  std::size_t bytes_for_floor() const;

  Case case_;
  Group group_;
  int device_;
  std::unique_ptr<Buffer> buffer_;
  CudaStream stream_;
  std::shared_ptr<std::byte> x_;
  std::shared_ptr<std::byte> scales_;
  std::shared_ptr<std::byte> topk_idx_;
  std::shared_ptr<std::byte> topk_weights_;
  std::shared_ptr<std::byte> foreign_rows_;
  DispatchResult received_;  // of the dispatch that came first, with exact sizes
};

}  // namespace moelink::bench
