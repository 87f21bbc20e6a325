// Ranks with GPUs: which device each has, how they run, and how tests look into their memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/cuda/check.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/memory_probes.hpp"
#include "symm/cuda/cuda_memory.hpp"

namespace moelink::test {

// Ranks take the devices in turn, so that one is enough for every test.
inline int device_of(Rank rank) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "count the devices");
  return rank.value() % count;
}

// Makes the rank's device current too, which copies need.
inline std::shared_ptr<SymmetricMemory> open_on_own_device(const std::string& wish,
                                                           Bootstrap& bootstrap, std::size_t bytes,
                                                           const Deadline& deadline) {
  const int device = device_of(bootstrap.rank());
  check_cuda(cudaSetDevice(device), "select a device");
  return open_cuda_memory_as(wish, bootstrap, bytes, device, deadline);
}

inline void copy_by_cuda(void* to, const void* from, std::size_t bytes) {
  check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "copy");
  // A copy from ordinary memory may return before it has arrived.
  check_cuda(cudaStreamSynchronize(nullptr), "copy");
}

// A process that forks after it has used CUDA gives its children a CUDA that fails. A sanitizer
// loads CUDA into every process without using it: MOELINK_TEST_SANITIZER says that there is one.
inline bool process_has_used_cuda() {
  return std::getenv("MOELINK_TEST_SANITIZER") == nullptr && count_mappings("libcuda.so") > 0;
}

// As run_process_ranks, and says so if tests that use CUDA ran in this process before.
inline std::vector<std::string> run_cuda_processes(int num_ranks,
                                                   const std::function<void(Bootstrap&)>& body) {
  if (process_has_used_cuda()) {
    return std::vector<std::string>(static_cast<std::size_t>(num_ranks),
                                    "this process has used CUDA and cannot fork ranks: run each "
                                    "test in a process of its own, as ctest does");
  }
  return run_process_ranks(num_ranks, body);
}

}  // namespace moelink::test
