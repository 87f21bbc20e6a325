// What a backend does for a Buffer: the operations, on validated arguments.
#pragma once

#include <initializer_list>
#include <memory>

#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "moelink/results.hpp"
#include "moelink/routing.hpp"

namespace moelink {

// Operations are collective and ordered; see moelink/buffer.hpp for their contracts. Arguments have
// passed the checks that need no peer; a backend checks what only the exchange can show.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual DispatchResult dispatch(const DispatchConfig& config) = 0;
  virtual DispatchResult dispatch(const CachedDispatchConfig& config) = 0;
  virtual CombineResult combine(const CombineConfig& config) = 0;
  virtual Tensor empty(DType dtype, std::initializer_list<std::int64_t> shape) = 0;
  virtual void barrier() = 0;

  // Collective and idempotent: waits for the peers, then gives up the memory.
  virtual void close() = 0;

  virtual bool owns(const Routing& handle) const = 0;
  virtual MemoryStatistics memory_statistics() const = 0;
};

// Collective. Throws Error(kUnsupported) when this build or machine lacks the backend.
std::unique_ptr<Backend> make_cpu_backend(const Group& group, const BufferConfig& config);

}  // namespace moelink
