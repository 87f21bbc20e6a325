// Memory of calls that are captured in CUDA graphs.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "symm/arena.hpp"

namespace moelink {

// A graph may be launched at any time, so what its calls use stays reserved until the buffer goes.
// What their owners let go of serves later calls of the same capture, which run after them: a graph
// of many layers needs the memory of one. Thread-safe.
class CapturePool : public std::enable_shared_from_this<CapturePool> {
 public:
  // A block for a call of capture `id`, contents unspecified. Throws as Arena::allocate does.
  std::shared_ptr<void> allocate(Arena& arena, std::uint64_t id, std::size_t bytes);
  // Keeps a block that captured calls use as long as this object.
  void retain(std::shared_ptr<void> block);

 private:
  struct Free {
    std::uint64_t id;
    std::size_t bytes;
    std::shared_ptr<void> block;
  };

  std::shared_ptr<void> take(std::uint64_t id, std::size_t bytes);
  void give_back(Free block);

  std::mutex mutex_;  // guards what follows
  std::vector<Free> free_;
  std::vector<std::shared_ptr<void>> retained_;
};

}  // namespace moelink
