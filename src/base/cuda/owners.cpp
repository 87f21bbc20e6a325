// Makers of CUDA resources.
#include "base/cuda/owners.hpp"

#include <cstring>

namespace moelink {

CudaStream CudaStream::make() {
  CudaStream stream;
  check_cuda(cudaStreamCreateWithFlags(&stream.stream_, cudaStreamNonBlocking), "make a stream");
  return stream;
}

CudaEvent CudaEvent::make() {
  CudaEvent event;
  check_cuda(cudaEventCreateWithFlags(&event.event_, cudaEventDisableTiming), "make an event");
  return event;
}

std::uint64_t capture_of(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  // Asked first: the legacy stream may be asked for no more than this.
  check_cuda(cudaStreamIsCapturing(stream, &status), "ask whether a stream is being captured");
  if (status == cudaStreamCaptureStatusNone) return 0;
  unsigned long long id = 0;
  check_cuda(cudaStreamGetCaptureInfo(stream, &status, &id), "ask which capture a stream is in");
  return id;
}

std::shared_ptr<std::byte> make_device_memory(std::size_t bytes) {
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, bytes), "allocate device memory");
  std::shared_ptr<std::byte> owner(static_cast<std::byte*>(memory),
                                   [](std::byte* pointer) { cudaFree(pointer); });
  check_cuda(cudaMemset(memory, 0, bytes), "clear device memory");
  check_cuda(cudaDeviceSynchronize(), "clear device memory");
  return owner;
}

std::shared_ptr<std::byte> make_pinned_memory(std::size_t bytes) {
  void* memory = nullptr;
  check_cuda(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped),
             "allocate pinned memory");
  std::memset(memory, 0, bytes);
  return {static_cast<std::byte*>(memory), [](std::byte* pointer) { cudaFreeHost(pointer); }};
}

}  // namespace moelink
