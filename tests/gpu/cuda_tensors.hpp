// Memory of the user's tensors on a GPU, for tests whose ranks are threads.
#pragma once

#include <cstddef>
#include <memory>

namespace moelink::test {

// Ranks that are threads share a CUDA context, in which many calls wait until running kernels have
// ended; and those wait for the ranks that make such a call. So all memory is taken once, before
// the first operation, and copies pass through pinned memory.
std::shared_ptr<void> allocate_on_gpu(std::size_t bytes);
void copy_to_gpu(void* to, const void* from, std::size_t bytes);
void copy_from_gpu(void* to, const void* from, std::size_t bytes);

}  // namespace moelink::test
