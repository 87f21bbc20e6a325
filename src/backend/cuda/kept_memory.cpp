// Batches of blocks, each with the event after which it may go.
#include "backend/cuda/kept_memory.hpp"

#include <iterator>

namespace moelink {

void KeptMemory::keep(Blocks blocks, cudaStream_t stream) {
  if (blocks.empty()) return;
  if (is_capturing(stream)) {
    captured_.insert(captured_.end(), std::make_move_iterator(blocks.begin()),
                     std::make_move_iterator(blocks.end()));
    return;
  }
  Batch batch{CudaEvent::make(), std::move(blocks)};
  check_cuda(cudaEventRecord(batch.done.get(), stream), "record an event");
  batches_.push_back(std::move(batch));
}

void KeptMemory::drop_finished() {
  while (!batches_.empty() && cudaEventQuery(batches_.front().done.get()) == cudaSuccess) {
    batches_.pop_front();
  }
  cudaGetLastError();  // "not ready" is no error of a later call
}

}  // namespace moelink
