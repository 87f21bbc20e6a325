// What each provider can be trusted with, by version.
#include "transport/registration_ladder.hpp"

namespace moelink {

namespace {

constexpr FabricVersion kFirstWithDmabuf{1, 20};
constexpr FabricVersion kFirstEfaWithDeviceWrites{1, 18};

// Providers whose hardware reads and writes a GPU's memory. Others would copy through the CPU,
// slower than kernels that write to pinned memory themselves.
bool reaches_gpu_memory(const std::string& provider) {
  return provider == "verbs" || provider == "efa" || provider == "cxi";
}

}  // namespace

std::vector<GpuRegistration> plan_gpu_registration(const FabricCapabilities& capabilities) {
  std::vector<GpuRegistration> ladder;
  const bool writes_from_device =
      capabilities.provider != "efa" || capabilities.version >= kFirstEfaWithDeviceWrites;
  if (capabilities.hmem && reaches_gpu_memory(capabilities.provider) && writes_from_device) {
    if (capabilities.dmabuf && capabilities.gpu_exports_dmabuf &&
        capabilities.version >= kFirstWithDmabuf) {
      ladder.push_back(GpuRegistration::kDmabuf);
    }
    ladder.push_back(GpuRegistration::kHmem);
  }
  ladder.push_back(GpuRegistration::kPinnedHost);
  return ladder;
}

}  // namespace moelink
