// Batches of blocks, each with the event after which it may go.
#include "backend/cuda/kept_memory.hpp"

namespace moelink {

void KeptMemory::keep(Blocks blocks, cudaStream_t stream) {
  if (blocks.empty() || is_capturing(stream)) return;
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
