// Buffer: dispatch tokens to experts and combine what the experts return.
#pragma once

#include <initializer_list>
#include <memory>

#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "moelink/results.hpp"
#include "moelink/routing.hpp"

namespace moelink {

class Backend;

// One rank's end of the exchange. Construction, dispatch, combine, barrier and close are collective:
// all ranks of the group make the same calls in the same order. A Buffer is used by one thread at a
// time; several Buffers may be used from several threads.
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

  // Destinations and counts that follow from a top-k list. Local, not collective.
  LayoutResult query_layout(const LayoutConfig& config) const;

  // Sends each token once to every rank that holds one of its experts. Bit-exact and deterministic.
  DispatchResult dispatch(const DispatchConfig& config);
  DispatchResult dispatch(const CachedDispatchConfig& config);

  // Sums, for each token, the rows that its ranks return: float32 accumulation from bias_0 + bias_1,
  // ranks ascending, rounded once to nearest even. Expert-major rows of one rank are first summed for
  // k ascending and rounded. With several nodes, ranks are summed and rounded per node first.
  CombineResult combine(const CombineConfig& config);

  // A tensor in symmetric memory: combine reads it in place, without a staging copy. Local.
  Tensor empty(DType dtype, std::initializer_list<std::int64_t> shape);

  void barrier();
  // Waits for all ranks, then releases the memory; tensors still alive keep theirs. Idempotent.
  void close();

  const Group& group() const { return group_; }
  const BufferConfig& config() const { return config_; }
  MemoryStatistics memory_statistics() const;

 private:
  Group group_;
  BufferConfig config_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace moelink
