// Owner of a reserved range of device addresses that holds one region per rank.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "symm/cuda/device_allocation.hpp"

namespace moelink {

// Unmaps everything in the range when it goes; waits for nothing. Not copyable, not movable.
class DeviceAddressRange {
 public:
  // Reserves, without using memory. `region_bytes` is a multiple of kRegionAlignment and of the
  // granularity of all devices. Throws Error(kSystem).
  DeviceAddressRange(int num_regions, std::size_t region_bytes);
  ~DeviceAddressRange();
  DeviceAddressRange(const DeviceAddressRange&) = delete;
  DeviceAddressRange& operator=(const DeviceAddressRange&) = delete;

  std::byte* region(Rank rank) const { return base_ + rank.index() * region_bytes_; }
  std::vector<std::byte*> regions() const;

  // Puts memory into the place of site.owner, for kernels and copies of `devices`.
  void map(const DeviceAllocation& allocation, const RegionSite& site,
           std::span<const int> devices);

 private:
  std::byte* base_ = nullptr;
  std::size_t region_bytes_ = 0;
  std::vector<bool> is_mapped_;
};

// Fills a region with zeros and waits for that alone, not for other work of the device.
void clear_region(std::byte* region, const RegionSite& site);

}  // namespace moelink
