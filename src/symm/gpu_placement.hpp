// Decides how ranks can share memory for GPUs from what each tells about itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "symm/host_identity.hpp"

namespace moelink {

struct GpuIdentity {
  HostIdentity host;
  int device = 0;      // number that CUDA gives the GPU in the rank's process
  std::string bus_id;  // on PCI: the same GPU has the same one in every process
  // Buses of GPUs that the rank's process sees and that cannot reach its own GPU, or the reverse.
  std::vector<std::string> unreachable;
  bool maps_addresses = false;       // virtual memory management
  bool exports_descriptors = false;  // and memory made that way can be passed to processes
  bool exports_fabric = false;       // by handles that are valid on every host of a fabric
  std::size_t granularity = 0;       // bytes: memory is made in multiples of it
  std::string wish = "auto";         // see Environment::cuda_memory

  std::string encode() const;
  // Throws Error(kInternal) if the text is no encoding.
  static GpuIdentity decode(const std::string& text);
};

enum class GpuMemoryKind : std::uint8_t { kInproc, kVmm, kFabric, kIpc, kPinned };

// All ranks come to the same conclusion. Throws as placement_of, Error(kInvalidArgument) if ranks
// have different wishes, Error(kUnsupported) naming the ranks that cannot have what they wish.
GpuMemoryKind gpu_memory_kind_of(const std::vector<GpuIdentity>& identities);

}  // namespace moelink
