// Move-only owners of CUDA streams, events and memory; get() gives the handle to use.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/cuda/check.hpp"

namespace moelink {

// Makes `device` current for this thread while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    check_cuda(cudaGetDevice(&previous_), "read the current device");
    if (device != previous_) check_cuda(cudaSetDevice(device), "select a device");
  }
  ~DeviceScope() { cudaSetDevice(previous_); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
};

class CudaStream {
 public:
  // Does not wait for the legacy default stream, nor it for this one.
  static CudaStream make();
  CudaStream() = default;
  CudaStream(CudaStream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  CudaStream& operator=(CudaStream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~CudaStream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  static CudaEvent make();  // without timing
  CudaEvent() = default;
  CudaEvent(CudaEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  ~CudaEvent() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }

  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// The capture of which what is enqueued on `stream` becomes a part; 0: none.
std::uint64_t capture_of(cudaStream_t stream);
inline bool is_capturing(cudaStream_t stream) { return capture_of(stream) != 0; }

// Zero-filled; freed with the last copy. Pinned memory has the same address on host and device.
std::shared_ptr<std::byte> make_device_memory(std::size_t bytes);
std::shared_ptr<std::byte> make_pinned_memory(std::size_t bytes);

}  // namespace moelink
