// What every launch has in common.
#pragma once

#include <cuda_runtime_api.h>

#include "base/cuda/check.hpp"

namespace moelink::kernels {

// Lets a kernel use all the shared memory that a block of this GPU may have, and loads it.
template <class Kernel>
void allow_shared_memory(Kernel* kernel) {
  int device = 0;
  int bytes = 0;
  check_cuda(cudaGetDevice(&device), "read the current device");
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "read the size of shared memory");
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), "load a kernel");
  const int dynamic = bytes - static_cast<int>(attributes.sharedSizeBytes);
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic),
             "give a kernel its shared memory");
}

// `action`: as check_cuda() takes it.
inline void check_launch(const char* action) { check_cuda(cudaGetLastError(), action); }

}  // namespace moelink::kernels
