// What the low latency operations of one CUDA buffer share.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/low_latency/params.hpp"
#include "moelink/low_latency.hpp"
#include "protocol/line_area.hpp"

namespace moelink {

struct CudaContext;

// Operations are counted twice: kernels count those that run, which graphs repeat; the host counts
// those that it enqueues, to know which halves are in use.
struct CudaLowLatency {
  LineFormat line_format = LineFormat::kSplit;  // of the buffer's links

  // Device memory.
  kernels::LowLatencyState* state = nullptr;
  std::byte** areas = nullptr;      // [R]
  std::uint32_t* masked = nullptr;  // [R]

  LineArea area;
  std::shared_ptr<void> block;  // null while no area is open

  std::uint64_t num_sent = 0;
  // The last operation on each half that has been received.
  std::array<std::uint64_t, kNumLowLatencyHalves> received{};
  std::uint64_t num_void = 0;  // the first so many can no longer be received
  // Shared with the operations, which may outlive the buffer.
  std::shared_ptr<std::atomic<int>> num_outstanding = std::make_shared<std::atomic<int>>(0);

  // As far as the host knows: set by callers, or seen when they asked.
  std::vector<bool> known_masks;

  Tensor combine_area;                 // of low_latency_combine_buffer()
  std::uint64_t combine_area_for = 0;  // operation for which it was handed out

  // Waits for the device.
  std::vector<std::uint32_t> read_masks(int num_ranks) const;
};

// The device's part of a handle.
struct CudaLowLatencyRouting {
  kernels::LowLatencyMemory memory;
  std::shared_ptr<void> owner;
};

// One operation from its send to its receive; more than kMaxOutstandingLowLatency at a time throw
// Error(kInvalidArgument).
class CudaOutstandingSlot {
 public:
  CudaOutstandingSlot(const CudaContext& context, Operation operation);
  ~CudaOutstandingSlot() { count_->fetch_sub(1); }
  CudaOutstandingSlot(const CudaOutstandingSlot&) = delete;
  CudaOutstandingSlot& operator=(const CudaOutstandingSlot&) = delete;

 private:
  std::shared_ptr<std::atomic<int>> count_;
};

// Collective among unmasked ranks when the shape differs from that of the open area: waits for them
// on the host. Throws Error(kInvalidArgument) at all ranks whose shapes differ, and here if a graph
// is being captured or an operation is outstanding.
void ensure_line_area(CudaContext& context, int max_tokens, int num_topk, std::size_t hidden);

// Collective among unmasked ranks: waits for them on the host. What has been sent can no longer be
// received; ranks that were masked for a while count with the others again.
void clean_line_area(CudaContext& context);

// Counts the next operation. Throws Error(kInvalidArgument) while the last one on the same half has
// not been received.
std::uint64_t begin_low_latency(CudaContext& context, Operation operation);

// What all operations tell their kernels. `topk_weights` may be null.
kernels::LowLatencyLink low_latency_link(const CudaContext& context, int num_experts,
                                         const TensorView& topk_idx, const float* topk_weights);

// SMs of an operation.
int low_latency_blocks(const CudaContext& context, const StreamOptions& options);

}  // namespace moelink
