// What a backend does for a Buffer: the operations, on validated arguments.
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

enum class Mask { kClear, kSet };

// Operations are collective and ordered; see moelink/buffer.hpp for their contracts. Arguments have
// passed the checks that need no peer; a backend checks what only the exchange can show.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual LayoutResult query_layout(const LayoutConfig& config) = 0;  // local
  virtual DispatchResult dispatch(const DispatchConfig& config) = 0;
  virtual DispatchResult dispatch(const CachedDispatchConfig& config) = 0;
  virtual CombineResult combine(const CombineConfig& config) = 0;
  virtual LowLatencyDispatchResult low_latency_dispatch(const LowLatencyDispatchConfig& config) = 0;
  virtual LowLatencyCombineResult low_latency_combine(const LowLatencyCombineConfig& config) = 0;
  virtual Tensor low_latency_combine_buffer(const LowLatencyRouting& handle) = 0;
  virtual void clean_low_latency() = 0;
  virtual void set_mask(Rank rank, Mask mask) = 0;
  virtual bool is_masked(Rank rank) const = 0;
  virtual Tensor empty(DType dtype, std::initializer_list<std::int64_t> shape) = 0;
  virtual void barrier() = 0;

  // Collective and idempotent: waits for the peers, then gives up the memory.
  virtual void close() = 0;

  // Whether a handle with this owner id was made here.
  virtual bool owns(std::uint64_t owner) const = 0;
  virtual MemoryStatistics memory_statistics() const = 0;
  virtual NetworkStatistics network_statistics() const { return {}; }
  virtual std::vector<StageTime> last_stage_times() const { return {}; }
};

// Collective. Throws Error(kUnsupported) when this build or machine lacks the backend.
std::unique_ptr<Backend> make_cpu_backend(const Group& group, const BufferConfig& config);
std::unique_ptr<Backend> make_cuda_backend(const Group& group, const BufferConfig& config);

}  // namespace moelink
