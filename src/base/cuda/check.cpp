// Texts of CUDA errors, and the way to libcuda.
#include "base/cuda/check.hpp"

#include "base/check.hpp"

namespace moelink {
namespace {

// Of the interfaces that are asked for: CUDA 12.3, the oldest driver that is supported.
constexpr unsigned kDriverVersion = 12030;

}  // namespace

void throw_cuda_error(cudaError_t error, const char* action) {
  cudaGetLastError();  // an error that is not sticky would otherwise surface in a later call
  fail(ErrorCode::kSystem, "cannot {}: {} ({})", action, cudaGetErrorString(error),
       cudaGetErrorName(error));
}

void throw_cuda_error(CUresult error, const char* action) {
  const char* name = nullptr;
  const char* text = nullptr;
  cuda_driver<decltype(cuGetErrorName)>("cuGetErrorName")(error, &name);
  cuda_driver<decltype(cuGetErrorString)>("cuGetErrorString")(error, &text);
  fail(ErrorCode::kSystem, "cannot {}: {} ({})", action, text != nullptr ? text : "unknown error",
       name != nullptr ? name : "?");
}

void* cuda_driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check_cuda(
      cudaGetDriverEntryPointByVersion(name, &function, kDriverVersion, cudaEnableDefault, &found),
      "find a function of the CUDA driver");
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    fail(ErrorCode::kUnsupported, "the CUDA driver has no function {}: update the driver", name);
  }
  return function;
}

}  // namespace moelink
