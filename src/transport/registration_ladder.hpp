// How memory of a GPU is made known to a network, and what to fall back to.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace moelink {

struct FabricVersion {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;

  friend auto operator<=>(const FabricVersion&, const FabricVersion&) = default;
};

// What a provider and a GPU can do, as asked at run time.
struct FabricCapabilities {
  std::string provider;   // base name
  FabricVersion version;  // of the library that is loaded
  bool hmem = false;      // the provider answered a request for FI_HMEM
  bool dmabuf = false;    // the headers of this build know FI_MR_DMABUF
  bool gpu_exports_dmabuf = false;
};

enum class GpuRegistration : std::uint8_t {
  kDmabuf,      // a descriptor of the GPU's memory, registered by the kernel
  kHmem,        // the address, registered as CUDA memory
  kPinnedHost,  // not at all: kernels write to pinned host memory, which is registered instead
};

// What to try, in this order. The last is always kPinnedHost and always works. Memory of a GPU is
// never registered as if it were the CPU's: a provider that then touches it crashes the process.
std::vector<GpuRegistration> plan_gpu_registration(const FabricCapabilities& capabilities);

}  // namespace moelink
