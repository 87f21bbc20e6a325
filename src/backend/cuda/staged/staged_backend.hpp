// GPUs of several nodes: tensors pass through memory of the host, which the CPU backend carries.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/staged/staged_copies.hpp"
#include "moelink/group.hpp"

namespace moelink {

// Simple and slow: every operation copies its inputs to the host and its results back, and blocks
// the calling thread. Numerics are those of the CPU backend, which the CUDA backend shares bit for
// bit. Operations cannot be captured in graphs; hooks and events work.
class StagedBackend final : public Backend {
 public:
  StagedBackend(const Group& group, const BufferConfig& config);

  LayoutResult query_layout(const LayoutConfig& config) override;
  DispatchResult dispatch(const DispatchConfig& config) override;
  DispatchResult dispatch(const CachedDispatchConfig& config) override;
  CombineResult combine(const CombineConfig& config) override;
  LowLatencyDispatchResult low_latency_dispatch(const LowLatencyDispatchConfig& config) override;
  LowLatencyCombineResult low_latency_combine(const LowLatencyCombineConfig& config) override;
  Tensor low_latency_combine_buffer(const LowLatencyRouting& handle) override;
  void clean_low_latency() override { host_->clean_low_latency(); }
  void set_mask(Rank rank, Mask mask) override { host_->set_mask(rank, mask); }
  bool is_masked(Rank rank) const override { return host_->is_masked(rank); }
  Tensor empty(DType dtype, std::initializer_list<std::int64_t> shape) override;
  void barrier() override;
  void close() override { host_->close(); }
  bool owns(std::uint64_t owner) const override { return owner == id_; }
  MemoryStatistics memory_statistics() const override { return host_->memory_statistics(); }
  NetworkStatistics network_statistics() const override { return host_->network_statistics(); }

 private:
  DispatchResult take_back(DispatchResult on_host, const StreamOptions& options);
  std::shared_ptr<const Routing> handle_for(const std::shared_ptr<const Routing>& on_host);
  std::shared_ptr<const LowLatencyRouting> handle_for(
      const std::shared_ptr<const LowLatencyRouting>& on_host);
  void copy_received(const LowLatencyDispatchResult& to, const LowLatencyDispatchResult& from);
  // The valid rows of each group, as recv_count of the host's result says.
  void copy_valid_rows(const Tensor& device, const LowLatencyDispatchResult& on_host);

  std::uint64_t id_;
  int device_;
  std::unique_ptr<Backend> host_;
  StagedCopies copies_;
  Tensor combine_buffer_;  // of low_latency_combine_buffer()
};

// Collective. Whether the GPUs of the group cannot all reach each other's memory, but a network can
// reach their hosts: they are on several hosts and not of one NVLink domain (MOELINK_CUDA_MEMORY =
// fabric), or emulated nodes are to use a network (MOELINK_NETWORK other than auto and memory).
bool needs_staging(const Group& group, const BufferConfig& config);

}  // namespace moelink
