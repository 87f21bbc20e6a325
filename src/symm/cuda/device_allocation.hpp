// Memory of a GPU that has no address yet, and what a GPU can do with such memory.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/unique_fd.hpp"
#include "symm/cuda/region_check.hpp"

namespace moelink {

bool device_maps_addresses(int device);
bool device_exports_descriptors(int device);
bool device_exports_fabric(int device);
// Sizes of allocations are multiples of it. Needs device_maps_addresses().
std::size_t allocation_granularity(int device);

// With kFabric a handle is a text, which names the memory to every process of an IMEX domain.
enum class Sharing : std::uint8_t { kInProcess, kDescriptor, kFabric };

// Owns a reference: the memory lives as long as a reference, a mapping or a descriptor of it.
class DeviceAllocation {
 public:
  // Throws Error(kUnsupported) for kFabric if this process takes part in no IMEX domain; so do the
  // two functions for handles.
  static DeviceAllocation make(const RegionSite& site, Sharing sharing);
  // Of another process, or of this one.
  static DeviceAllocation import_descriptor(int fd, const RegionSite& site);
  static DeviceAllocation import_fabric(std::string_view handle, const RegionSite& site);

  DeviceAllocation(DeviceAllocation&& other) noexcept : handle_(std::exchange(other.handle_, 0)) {}
  DeviceAllocation& operator=(DeviceAllocation&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~DeviceAllocation();

  // Needs Sharing::kDescriptor.
  UniqueFd export_descriptor(const RegionSite& site) const;
  // Needs Sharing::kFabric.
  std::string export_fabric(const RegionSite& site) const;

  CUmemGenericAllocationHandle get() const { return handle_; }

 private:
  explicit DeviceAllocation(CUmemGenericAllocationHandle handle) : handle_(handle) {}

  CUmemGenericAllocationHandle handle_ = 0;
};

}  // namespace moelink
