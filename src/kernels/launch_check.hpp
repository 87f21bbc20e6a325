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

// Launches a kernel that begins with device::await_previous_kernel(): where the GPU can, it starts
// while the kernel before it on the stream ends. `action`: as check_cuda() takes it.
template <class... Params>
void launch_early(void (*kernel)(Params...), cudaLaunchConfig_t config, const char* action,
                  const Params&... params) {
  int device = 0;
  int major = 0;
  check_cuda(cudaGetDevice(&device), action);
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), action);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, params...), action);
}

// `action`: as check_cuda() takes it.
inline void check_launch(const char* action) { check_cuda(cudaGetLastError(), action); }

}  // namespace moelink::kernels
