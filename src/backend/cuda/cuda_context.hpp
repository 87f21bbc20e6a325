// What the operations of one CUDA buffer share.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "backend/capture_pool.hpp"
#include "backend/cuda/fault_check.hpp"
#include "backend/cuda/kept_memory.hpp"
#include "backend/cuda/low_latency/cuda_low_latency.hpp"
#include "backend/cuda/stream_order.hpp"
#include "device/domain.hpp"
#include "device/launch_limits.hpp"
#include "kernels/exchange/report.hpp"
#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "symm/arena.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink {

struct CudaContext {
  std::uint64_t id = 0;  // of the buffer, unique in this process
  Rank rank;
  Topology topology;
  int device = 0;
  std::chrono::milliseconds timeout{0};
  Survival survival = Survival::kRaise;
  int max_num_experts = 0;

  std::shared_ptr<SymmetricMemory> memory;
  ControlLayout layout;
  std::shared_ptr<Arena> arena;             // receive tensors, handles, results
  std::shared_ptr<std::byte> device_state;  // everything that `domain` points to
  std::shared_ptr<std::byte> pinned;        // a HostMailbox and a Report
  std::shared_ptr<const FaultCheck> faults;
  KeptMemory kept;
  std::shared_ptr<CapturePool> captured = std::make_shared<CapturePool>();
  std::uint64_t capture = 0;  // that the call under way is a part of; 0: none
  // Where combines stage rows, one after the other; grows.
  std::shared_ptr<void> ring;
  std::size_t ring_bytes = 0;
  CudaLowLatency low_latency;
  // Goes first: callers may have destroyed the streams on which what is kept would be given back.
  std::shared_ptr<StreamOrder> order;
  device::Domain domain;
  device::LaunchLimits limits;

  Epoch epoch;                     // of the last call
  std::size_t expected_bytes = 0;  // what the next dispatch will probably need
  std::atomic<std::uint64_t> num_window_misses{0};
  std::atomic<std::uint64_t> num_staged_combines{0};

  int num_ranks() const { return topology.num_ranks; }
  HostMailbox& mailbox() const { return *reinterpret_cast<HostMailbox*>(pinned.get()); }
  kernels::Report* report() const;

  // The begin of a call: finds out whether it becomes a part of a graph.
  void note_capture(const StreamOptions& options) { capture = order->capture_of(options); }
  bool is_captured() const { return capture != 0; }

  // A block of the arena whose memory comes back in stream order.
  std::shared_ptr<void> allocate(std::size_t bytes) const;
  std::shared_ptr<void> in_stream_order(std::shared_ptr<void> block) const;
  Tensor make_tensor(DType dtype, std::initializer_list<std::int64_t> shape) const;

  // At least `bytes` for the staging of the combine under way on `stream`, which ends before the
  // next one begins.
  std::byte* staging_ring(std::size_t bytes, cudaStream_t stream);

  // What a kernel may use in a call that asks for `num_workers` SMs (0: the buffer's).
  device::LaunchLimits limits_for(const StreamOptions& options) const;
};

// Collective.
std::unique_ptr<CudaContext> open_cuda_context(const Group& group, const BufferConfig& config);

}  // namespace moelink
