// One range of addresses for all devices that ranks use.
#include "symm/cuda/cuda_inproc.hpp"

#include <algorithm>
#include <utility>

#include "symm/cuda/device_address_range.hpp"
#include "symm/process_registry.hpp"
#include "symm/thread_watch.hpp"

namespace moelink {
namespace {

std::vector<int> without_repetition(std::vector<int> devices) {
  std::sort(devices.begin(), devices.end());
  devices.erase(std::unique(devices.begin(), devices.end()), devices.end());
  return devices;
}

// What the ranks have in common; lives as long as any of them holds it.
struct SharedRegions {
  explicit SharedRegions(const GpuPlan& plan)
      : range(static_cast<int>(plan.devices.size()), plan.bytes),
        departures(std::make_shared<Departures>(static_cast<int>(plan.devices.size()))) {
    const std::vector<int> all_devices = without_repetition(plan.devices);
    Rank rank(0);
    for (const int device : plan.devices) {
      const RegionSite site{rank, device, plan.bytes};
      range.map(DeviceAllocation::make(site, Sharing::kInProcess), site, all_devices);
      clear_region(range.region(rank), site);
      rank = rank.next();
    }
  }

  DeviceAddressRange range;
  std::shared_ptr<Departures> departures;
};

}  // namespace

std::shared_ptr<SymmetricMemory> open_cuda_inproc(Bootstrap& bootstrap, const GpuPlan& plan,
                                                  const Deadline& deadline) {
  auto shared = share_in_process<SharedRegions>(
      bootstrap, deadline, [&] { return std::make_shared<SharedRegions>(plan); });
  auto watch = std::make_unique<ThreadWatch>(bootstrap.rank(), shared->departures);
  std::vector<std::byte*> regions = shared->range.regions();
  return std::make_shared<GpuMemory>(GpuMemory::Parts{"cuda_inproc", bootstrap.rank(), plan.bytes,
                                                      std::move(regions), std::move(shared),
                                                      std::move(watch)});
}

}  // namespace moelink
