// Makes, exports and imports memory of GPUs.
#include "symm/cuda/device_allocation.hpp"

#include <cstring>

#include "symm/cuda/memory_driver.hpp"

namespace moelink {
namespace {

// The runtime and the driver number devices alike.
bool has_attribute(int device, CUdevice_attribute attribute) {
  int value = 0;
  check_cuda(memory_driver().attribute(&value, attribute, device), "read what a device can do");
  return value != 0;
}

CUmemAllocationHandleType handle_type_of(Sharing sharing) {
  switch (sharing) {
    case Sharing::kDescriptor:
      return CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    case Sharing::kFabric:
      return CU_MEM_HANDLE_TYPE_FABRIC;
    case Sharing::kInProcess:
      break;
  }
  return CU_MEM_HANDLE_TYPE_NONE;
}

// As check_region(). What the driver says where no IMEX domain can be used would help nobody.
void check_fabric(CUresult result, const char* action, const RegionSite& site, const char* remedy) {
  if (result != CUDA_ERROR_NOT_PERMITTED && result != CUDA_ERROR_NOT_SUPPORTED) {
    return check_region(result, action, site, remedy);
  }
  fail(ErrorCode::kUnsupported,
       "cannot {} the region of rank {} ({} bytes, device {}) by a fabric handle: no IMEX domain "
       "can "
       "be used here; start the service nvidia-imex and give this process a channel in "
       "/dev/nvidia-caps-imex-channels, or set MOELINK_CUDA_MEMORY to auto",
       action, site.owner.value(), site.bytes, site.device);
}

CUmemAllocationProp properties_of(int device, Sharing sharing) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device;
  properties.requestedHandleTypes = handle_type_of(sharing);
  // So that a network card may be given the region.
  if (has_attribute(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED)) {
    properties.allocFlags.gpuDirectRDMACapable = 1;
  }
  return properties;
}

}  // namespace

bool device_maps_addresses(int device) {
  return has_attribute(device, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
}

bool device_exports_descriptors(int device) {
  return has_attribute(device, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED);
}

bool device_exports_fabric(int device) {
  return has_attribute(device, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED);
}

std::size_t allocation_granularity(int device) {
  const CUmemAllocationProp properties = properties_of(device, Sharing::kInProcess);
  std::size_t granularity = 0;
  check_cuda(
      memory_driver().granularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
      "read the granularity of device memory");
  return granularity;
}

DeviceAllocation DeviceAllocation::make(const RegionSite& site, Sharing sharing) {
  const CUmemAllocationProp properties = properties_of(site.device, sharing);
  CUmemGenericAllocationHandle handle = 0;
  const CUresult result = memory_driver().create(&handle, site.bytes, &properties, 0);
  if (sharing == Sharing::kFabric) {
    check_fabric(result, "allocate", site, kAskForLess);
  } else {
    check_region(result, "allocate", site, kAskForLess);
  }
  return DeviceAllocation(handle);
}

DeviceAllocation DeviceAllocation::import_descriptor(int fd, const RegionSite& site) {
  CUmemGenericAllocationHandle handle = 0;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver takes the number in place of a pointer
  auto* const number = reinterpret_cast<void*>(static_cast<std::uintptr_t>(fd));
  check_region(
      memory_driver().import_handle(&handle, number, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
      "import", site, kChooseAnotherKind);
  return DeviceAllocation(handle);
}

DeviceAllocation DeviceAllocation::import_fabric(std::string_view handle, const RegionSite& site) {
  CUmemFabricHandle fabric{};
  if (handle.size() != sizeof(fabric)) {
    fail(ErrorCode::kInternal, "rank {} sent a fabric handle of {} bytes, expected {}",
         site.owner.value(), handle.size(), sizeof(fabric));
  }
  std::memcpy(&fabric, handle.data(), sizeof(fabric));
  CUmemGenericAllocationHandle imported = 0;
  check_fabric(memory_driver().import_handle(&imported, &fabric, CU_MEM_HANDLE_TYPE_FABRIC),
               "import", site, kChooseAnotherKind);
  return DeviceAllocation(imported);
}

DeviceAllocation::~DeviceAllocation() {
  if (handle_ != 0) memory_driver().release(handle_);
}

UniqueFd DeviceAllocation::export_descriptor(const RegionSite& site) const {
  int fd = -1;
  check_region(
      memory_driver().export_handle(&fd, handle_, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
      "export", site, kChooseAnotherKind);
  return UniqueFd(fd);
}

std::string DeviceAllocation::export_fabric(const RegionSite& site) const {
  CUmemFabricHandle fabric{};
  check_fabric(memory_driver().export_handle(&fabric, handle_, CU_MEM_HANDLE_TYPE_FABRIC, 0),
               "export", site, kChooseAnotherKind);
  return std::string(reinterpret_cast<const char*>(&fabric), sizeof(fabric));
}

}  // namespace moelink
