// Memory that only one call knows, kept until the GPU has finished with it.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "base/cuda/owners.hpp"

namespace moelink {

// Used by one thread at a time.
class KeptMemory {
 public:
  using Blocks = std::vector<std::shared_ptr<void>>;

  // Until everything that has been enqueued on `stream` so far has ended. The memory of captured
  // calls needs no such care, see CapturePool.
  void keep(Blocks blocks, cudaStream_t stream);
  void drop_finished();

 private:
  struct Batch {
    CudaEvent done;
    Blocks blocks;
  };

  std::deque<Batch> batches_;  // in the order of their completion
};

}  // namespace moelink
