// Asks the CUDA runtime where memory lies.
#include "backend/cuda/device_checks.hpp"

#include "base/cuda/check.hpp"

namespace moelink {

void require_on_device(Violations& violations, const char* name, const TensorView& tensor,
                       int device, std::size_t alignment) {
  if (tensor.num_elements() == 0) return;
  cudaPointerAttributes attributes{};
  check_cuda(cudaPointerGetAttributes(&attributes, tensor.data), "find out where a tensor lies");
  const bool is_device =
      attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  const bool is_mapped =
      attributes.type == cudaMemoryTypeHost && attributes.devicePointer != nullptr;
  violations.require(is_device || is_mapped, "{} lies in host memory, expected memory of cuda:{}",
                     name, device);
  violations.require(!is_device || attributes.device == device,
                     "{} lies on cuda:{}, expected cuda:{}", name, attributes.device, device);
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
  violations.require(address % alignment == 0, "{} starts at {}, expected a multiple of {} bytes",
                     name, tensor.data, alignment);
}

void require_on_device(Violations& violations, const char* name,
                       const std::optional<TensorView>& tensor, int device, std::size_t alignment) {
  if (tensor) require_on_device(violations, name, *tensor, device, alignment);
}

}  // namespace moelink
