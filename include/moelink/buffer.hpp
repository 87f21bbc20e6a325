// Buffer: dispatch tokens to experts and combine what the experts return.
#pragma once

#include <initializer_list>
#include <memory>
#include <vector>

#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "moelink/low_latency.hpp"
#include "moelink/results.hpp"
#include "moelink/routing.hpp"

namespace moelink {

class Backend;

// One rank's end of the exchange. Construction, dispatch, combine, barrier and close are
// collective: all ranks of the group make the same calls in the same order. A Buffer is used by one
// thread at a time; several Buffers may be used from several threads.
//
// Bad arguments throw Error(kInvalidArgument) before anything is sent and leave the buffer usable.
// A lost or late peer throws Error(kPeerLost) or Error(kTimeout) at every survivor; the buffer then
// refuses further operations and only close() and a new group remain.
class Buffer {
 public:
  Buffer(Group group, const BufferConfig& config = {});
  ~Buffer();  // close() without waiting for peers
  Buffer(Buffer&&) noexcept;
  Buffer& operator=(Buffer&&) noexcept;

  // Destinations and counts that follow from a top-k list. Local, not collective. On a GPU, which
  // the call does not wait for, ids that are no experts are left out; the dispatch names them.
  LayoutResult query_layout(const LayoutConfig& config) const;

  // Sends each token once to every rank that holds one of its experts. Bit-exact and deterministic.
  DispatchResult dispatch(const DispatchConfig& config);
  DispatchResult dispatch(const CachedDispatchConfig& config);

  // Sums, for each token, the rows that its ranks return: float32 accumulation from bias_0 +
  // bias_1, ranks ascending, rounded once to nearest even. Expert-major rows of one rank are first
  // summed for k ascending and rounded. With several nodes, ranks are summed and rounded per node
  // first.
  CombineResult combine(const CombineConfig& config);

  // Low latency mode: fixed slots for M tokens per rank, one message per pair of ranks, no exchange
  // of counts. At most two operations may be outstanding (sent, but not received). The first call
  // of a new shape (M, H, K) opens an area in symmetric memory, collectively.
  LowLatencyDispatchResult low_latency_dispatch(const LowLatencyDispatchConfig& config);
  LowLatencyCombineResult low_latency_combine(const LowLatencyCombineConfig& config);
  // The tensor that the next low latency operation can combine from (CombineInput::kNextArea):
  // bfloat16, shaped as recv_x of the handle. Valid until that operation.
  Tensor low_latency_combine_buffer(const std::shared_ptr<const LowLatencyRouting>& handle);
  // Collective among unmasked ranks: ends the low latency mode's use of its area, with a barrier.
  // With Survival::kMask, ranks that were masked for a while take part in both modes again.
  void clean_low_latency();
  // Bytes of symmetric memory that the low latency mode takes for a shape.
  static std::size_t low_latency_size_hint(int num_max_tokens_per_rank, std::int64_t hidden,
                                           int num_ranks, int num_topk);

  // Masks are local: a masked peer is sent nothing, and nothing is awaited from it. A rank whose
  // mask all have cleared is back after a clean_low_latency() of all.
  void mask_rank(Rank rank);
  void unmask_rank(Rank rank);
  bool is_masked(Rank rank) const;

  // A tensor in symmetric memory: combine reads it in place, without a staging copy. Local.
  Tensor empty(DType dtype, std::initializer_list<std::int64_t> shape);

  void barrier();
  // Waits for all ranks, then releases the memory; tensors still alive keep theirs. Idempotent.
  void close();

  const Group& group() const { return group_; }
  const BufferConfig& config() const { return config_; }
  MemoryStatistics memory_statistics() const;
  // Waits for the operations that have been called (CPU backend; zeros on GPUs).
  NetworkStatistics network_statistics() const;
  // The stages of the last operation, in order; waits for it. Empty unless this is a CUDA buffer
  // made with StageClock::kOn; on the CPU, set_trace_hook() tells the same.
  std::vector<StageTime> last_stage_times() const;

 private:
  Group group_;
  BufferConfig config_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace moelink
