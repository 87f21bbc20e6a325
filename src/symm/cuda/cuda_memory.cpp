// Lets ranks tell each other about their GPUs, then opens the kind that suits all.
#include "symm/cuda/cuda_memory.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.hpp"
#include "base/cuda/owners.hpp"
#include "base/environment.hpp"
#include "symm/collective_step.hpp"
#include "symm/cuda/cuda_inproc.hpp"
#include "symm/cuda/cuda_ipc.hpp"
#include "symm/cuda/cuda_pinned.hpp"
#include "symm/cuda/cuda_vmm.hpp"
#include "symm/cuda/device_allocation.hpp"
#include "symm/gpu_placement.hpp"

namespace moelink {
namespace {

int count_devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    fail(ErrorCode::kUnsupported,
         "this process sees no GPU that it can use: {}; look at nvidia-smi and "
         "CUDA_VISIBLE_DEVICES",
         cudaGetErrorString(error));
  }
  check_cuda(error, "count the devices");
  return count;
}

void require_device(int device, int num_devices) {
  if (device >= 0 && device < num_devices) return;
  fail(ErrorCode::kInvalidArgument,
       "device is {}, expected 0 to {}: this process sees {} devices (CUDA_VISIBLE_DEVICES)",
       device, num_devices - 1, num_devices);
}

std::string bus_id_of(int device) {
  std::array<char, 32> text{};
  check_cuda(cudaDeviceGetPCIBusId(text.data(), static_cast<int>(text.size()), device),
             "read the bus of a device");
  return text.data();
}

bool can_access(int device, int peer) {
  int can = 0;
  check_cuda(cudaDeviceCanAccessPeer(&can, device, peer), "ask whether devices reach each other");
  return can != 0;
}

std::vector<std::string> unreachable_from(int device, int num_devices) {
  std::vector<std::string> buses;
  for (int peer = 0; peer < num_devices; ++peer) {
    if (peer == device || (can_access(device, peer) && can_access(peer, device))) continue;
    buses.push_back(bus_id_of(peer));
  }
  return buses;
}

GpuIdentity identify(int device, std::size_t size_bytes, const std::string& wish) {
  const int num_devices = count_devices();
  require_device(device, num_devices);
  const DeviceScope scope(device);
  check_cuda(cudaFree(nullptr), "initialise a device");  // others may map memory for it
  GpuIdentity identity;
  identity.host = HostIdentity::of_this_process(size_bytes);
  identity.device = device;
  identity.bus_id = bus_id_of(device);
  identity.unreachable = unreachable_from(device, num_devices);
  identity.maps_addresses = device_maps_addresses(device);
  identity.exports_descriptors = identity.maps_addresses && device_exports_descriptors(device);
  identity.exports_fabric = identity.maps_addresses && device_exports_fabric(device);
  identity.granularity = identity.maps_addresses ? allocation_granularity(device) : 0;
  identity.wish = wish;
  return identity;
}

GpuPlan plan_of(const std::vector<GpuIdentity>& identities) {
  GpuPlan plan;
  std::size_t granularity = kRegionAlignment;  // a power of two, as all are
  std::vector<HostIdentity> hosts;
  for (const GpuIdentity& identity : identities) {
    granularity = std::max(granularity, identity.granularity);
    plan.devices.push_back(identity.device);
    hosts.push_back(identity.host);
  }
  plan.placement = placement_of(hosts);
  plan.bytes = round_up(hosts.front().size_bytes, granularity);
  return plan;
}

}  // namespace

std::shared_ptr<SymmetricMemory> open_cuda_memory_as(const std::string& wish, Bootstrap& bootstrap,
                                                     std::size_t size_bytes, int device,
                                                     const Deadline& deadline) {
  std::vector<GpuIdentity> identities;
  for (const std::string& text :
       collective_step(bootstrap, "finding the GPUs of ranks", deadline,
                       [&] { return identify(device, size_bytes, wish).encode(); })) {
    identities.push_back(GpuIdentity::decode(text));
  }
  const GpuMemoryKind kind = gpu_memory_kind_of(identities);
  const GpuPlan plan = plan_of(identities);
  const DeviceScope scope(device);
  switch (kind) {
    case GpuMemoryKind::kInproc:
      return open_cuda_inproc(bootstrap, plan, deadline);
    case GpuMemoryKind::kVmm:
      return open_cuda_vmm(bootstrap, plan, Sharing::kDescriptor, deadline);
    case GpuMemoryKind::kFabric:
      return open_cuda_vmm(bootstrap, plan, Sharing::kFabric, deadline);
    case GpuMemoryKind::kIpc:
      return open_cuda_ipc(bootstrap, plan, deadline);
    case GpuMemoryKind::kPinned:
      break;
  }
  return open_cuda_pinned(bootstrap, plan, deadline);
}

std::shared_ptr<SymmetricMemory> open_cuda_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                  int device, const Deadline& deadline) {
  return open_cuda_memory_as(environment().cuda_memory, bootstrap, size_bytes, device, deadline);
}

}  // namespace moelink
