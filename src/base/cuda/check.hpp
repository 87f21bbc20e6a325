// Errors of the CUDA runtime and driver as Error(kSystem).
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace moelink {

// `action` completes "cannot ...", such as "make a stream". Call it before any other CUDA call.
[[noreturn]] void throw_cuda_error(cudaError_t error, const char* action);
[[noreturn]] void throw_cuda_error(CUresult error, const char* action);

inline void check_cuda(cudaError_t error, const char* action) {
  if (error != cudaSuccess) throw_cuda_error(error, action);
}
inline void check_cuda(CUresult error, const char* action) {
  if (error != CUDA_SUCCESS) throw_cuda_error(error, action);
}

// Address of a function of libcuda, which is not linked so that one build runs where it is absent.
// Throws Error(kUnsupported) when the driver lacks it.
void* cuda_driver_function(const char* name);

// Typed: cuda_driver<decltype(cuMemCreate)>("cuMemCreate")(...).
template <class Function>
Function* cuda_driver(const char* name) {
  return reinterpret_cast<Function*>(cuda_driver_function(name));
}

}  // namespace moelink
