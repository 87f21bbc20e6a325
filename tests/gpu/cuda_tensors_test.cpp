// The heaps behind cuda_tensors.hpp, and a test of them.
#include "gpu/cuda_tensors.hpp"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "base/cuda/check.hpp"

namespace moelink::test {
namespace {

constexpr std::size_t kDeviceHeapBytes = std::size_t{512} << 20;
constexpr std::size_t kPinnedHeapBytes = std::size_t{64} << 20;
constexpr std::size_t kLargestCopy = std::size_t{4} << 20;

// First fit in one block of memory. Thread-safe.
class Heap {
 public:
  Heap(void* base, std::size_t bytes) : base_(static_cast<std::byte*>(base)) { free_[0] = bytes; }

  std::shared_ptr<void> allocate(std::size_t bytes) {
    const std::size_t size = std::max<std::size_t>(256, (bytes + 255) / 256 * 256);
    const std::lock_guard lock(mutex_);
    for (auto hole = free_.begin(); hole != free_.end(); ++hole) {
      if (hole->second < size) continue;
      const std::size_t at = hole->first;
      const std::size_t left = hole->second - size;
      free_.erase(hole);
      if (left > 0) free_[at + size] = left;
      return {base_ + at, [this, at, size](void*) { give_back(at, size); }};
    }
    throw std::runtime_error("the test's GPU heap is full");
  }

 private:
  void give_back(std::size_t at, std::size_t size) {
    const std::lock_guard lock(mutex_);
    auto hole = free_.emplace(at, size).first;
    if (hole != free_.begin()) {
      const auto lower = std::prev(hole);
      if (lower->first + lower->second == at) {
        lower->second += size;
        free_.erase(hole);
        hole = lower;
      }
    }
    const auto upper = std::next(hole);
    if (upper == free_.end() || hole->first + hole->second != upper->first) return;
    hole->second += upper->second;
    free_.erase(upper);
  }

  std::byte* base_;
  std::mutex mutex_;
  std::map<std::size_t, std::size_t> free_;  // offset to bytes
};

Heap& device_heap() {
  static Heap* const heap = [] {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, kDeviceHeapBytes), "take memory for tests");
    return new Heap(memory, kDeviceHeapBytes);
  }();
  return *heap;
}

Heap& pinned_heap() {
  static Heap* const heap = [] {
    void* memory = nullptr;
    check_cuda(cudaHostAlloc(&memory, kPinnedHeapBytes, cudaHostAllocDefault),
               "take pinned memory for tests");
    return new Heap(memory, kPinnedHeapBytes);
  }();
  return *heap;
}

void copy_and_wait(void* to, const void* from, std::size_t bytes) {
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cudaStreamPerThread), "copy");
  check_cuda(cudaStreamSynchronize(cudaStreamPerThread), "copy");
}

}  // namespace

std::shared_ptr<void> allocate_on_gpu(std::size_t bytes) {
  pinned_heap();
  return device_heap().allocate(bytes);
}

void copy_to_gpu(void* to, const void* from, std::size_t bytes) {
  const std::shared_ptr<void> stage = pinned_heap().allocate(std::min(bytes, kLargestCopy));
  for (std::size_t at = 0; at < bytes; at += kLargestCopy) {
    const std::size_t size = std::min(kLargestCopy, bytes - at);
    std::memcpy(stage.get(), static_cast<const std::byte*>(from) + at, size);
    copy_and_wait(static_cast<std::byte*>(to) + at, stage.get(), size);
  }
}

void copy_from_gpu(void* to, const void* from, std::size_t bytes) {
  const std::shared_ptr<void> stage = pinned_heap().allocate(std::min(bytes, kLargestCopy));
  for (std::size_t at = 0; at < bytes; at += kLargestCopy) {
    const std::size_t size = std::min(kLargestCopy, bytes - at);
    copy_and_wait(stage.get(), static_cast<const std::byte*>(from) + at, size);
    std::memcpy(static_cast<std::byte*>(to) + at, stage.get(), size);
  }
}

namespace {

TEST(CudaTensors, CopiesOfAnySizeArriveWhole) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, kLargestCopy + 3}) {
    std::vector<unsigned char> sent(size);
    for (std::size_t i = 0; i < size; ++i) sent[i] = static_cast<unsigned char>(i * 7 + 1);
    const std::shared_ptr<void> tensor = allocate_on_gpu(size);
    copy_to_gpu(tensor.get(), sent.data(), size);
    std::vector<unsigned char> seen(size);
    copy_from_gpu(seen.data(), tensor.get(), size);
    EXPECT_EQ(seen, sent) << size;
  }
}

TEST(CudaTensors, MemoryThatIsGivenBackIsUsedAgain) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_NO_THROW(allocate_on_gpu(kDeviceHeapBytes / 4 * 3)) << i;
  }
}

}  // namespace
}  // namespace moelink::test
