// Reserves device addresses and maps memory of GPUs into them.
#include "symm/cuda/device_address_range.hpp"

#include <limits>
#include <string>

#include "base/check.hpp"
#include "base/cuda/owners.hpp"
#include "symm/cuda/memory_driver.hpp"

namespace moelink {
namespace {

CUdeviceptr number_of(const std::byte* address) { return reinterpret_cast<CUdeviceptr>(address); }

std::vector<CUmemAccessDesc> access_of(std::span<const int> devices) {
  std::vector<CUmemAccessDesc> access;
  for (const int device : devices) {
    access.push_back({{CU_MEM_LOCATION_TYPE_DEVICE, {device}}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE});
  }
  return access;
}

}  // namespace

DeviceAddressRange::DeviceAddressRange(int num_regions, std::size_t region_bytes)
    : region_bytes_(region_bytes), is_mapped_(static_cast<std::size_t>(num_regions)) {
  const std::size_t count = is_mapped_.size();
  const std::string action = fmt::format("reserve device addresses for {} regions of {} bytes; {}",
                                         count, region_bytes, kAskForLess);
  if (region_bytes > std::numeric_limits<std::size_t>::max() / 2 / count) {
    fail(ErrorCode::kSystem, "cannot {}", action);
  }
  CUdeviceptr base = 0;
  check_cuda(memory_driver().reserve(&base, count * region_bytes, kRegionAlignment, 0, 0),
             action.c_str());
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver gives addresses as numbers
  base_ = reinterpret_cast<std::byte*>(base);
}

DeviceAddressRange::~DeviceAddressRange() {
  for (std::size_t rank = 0; rank < is_mapped_.size(); ++rank) {
    if (!is_mapped_[rank]) continue;
    memory_driver().unmap(number_of(base_ + rank * region_bytes_), region_bytes_);
  }
  memory_driver().free(number_of(base_), is_mapped_.size() * region_bytes_);
}

std::vector<std::byte*> DeviceAddressRange::regions() const {
  std::vector<std::byte*> all;
  for (std::size_t rank = 0; rank < is_mapped_.size(); ++rank) {
    all.push_back(base_ + rank * region_bytes_);
  }
  return all;
}

void DeviceAddressRange::map(const DeviceAllocation& allocation, const RegionSite& site,
                             std::span<const int> devices) {
  const CUdeviceptr address = number_of(region(site.owner));
  check_region(memory_driver().map(address, region_bytes_, 0, allocation.get(), 0), "map", site,
               kChooseAnotherKind);
  is_mapped_[site.owner.index()] = true;
  const std::vector<CUmemAccessDesc> access = access_of(devices);
  check_region(memory_driver().set_access(address, region_bytes_, access.data(), access.size()),
               "access", site, kChooseAnotherKind);
}

void clear_region(std::byte* region, const RegionSite& site) {
  const DeviceScope scope(site.device);
  const CudaStream stream = CudaStream::make();
  check_region(cudaMemsetAsync(region, 0, site.bytes, stream.get()), "clear", site, kAskForLess);
  check_region(cudaStreamSynchronize(stream.get()), "clear", site, kAskForLess);
}

}  // namespace moelink
