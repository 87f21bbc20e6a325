// Pins the regions of a symmetric memory of the CPU.
#include "symm/cuda/cuda_pinned.hpp"

#include <utility>

#include "base/check.hpp"
#include "symm/collective_step.hpp"
#include "symm/cuda/region_check.hpp"
#include "symm/process_registry.hpp"

namespace moelink {
namespace {

constexpr const char* kPinLess =
    "the system lets GPUs have no more of its memory; lower max_symmetric_bytes or "
    "MOELINK_MAX_SYMMETRIC_BYTES";

// Pinning takes all memory of a region at once and would call the system's out-of-memory killer.
void require_memory_to_pin(int num_regions, std::size_t bytes) {
  const std::size_t available = available_memory_bytes();
  if (bytes <= available / static_cast<std::size_t>(num_regions)) return;
  fail(ErrorCode::kSystem,
       "cannot pin {} regions of {} bytes: {} bytes of memory are available; {}", num_regions,
       bytes, available, kAskForLess);
}

// Pins for the GPUs of all ranks in the process. Threads share it together with the memory that one
// of them gives.
class PinnedRegions {
 public:
  PinnedRegions(std::shared_ptr<SymmetricMemory> host, int device) : host_(std::move(host)) {
    for (Rank owner(0); owner.value() < host_->num_ranks(); owner = owner.next()) {
      pin({owner, device, host_->size_bytes()});
    }
  }

 private:
  void pin(const RegionSite& site) {
    std::byte* const region = host_->region(site.owner);
    check_region(
        cudaHostRegister(region, site.bytes, cudaHostRegisterPortable | cudaHostRegisterMapped),
        "pin", site, kPinLess);
    pins_.emplace_back(region, [](std::byte* pinned) { cudaHostUnregister(pinned); });
  }

  std::shared_ptr<SymmetricMemory> host_;
  std::vector<std::shared_ptr<std::byte>> pins_;
};

class HostWatch final : public PeerWatch {
 public:
  explicit HostWatch(std::shared_ptr<SymmetricMemory> host) : host_(std::move(host)) {}
  ~HostWatch() override { host_->announce_departure(); }  // PinnedRegions may hold it longer
  HostWatch(const HostWatch&) = delete;
  HostWatch& operator=(const HostWatch&) = delete;

  bool alive(Rank peer) const override { return host_->peer_alive(peer); }
  void announce_departure() override { host_->announce_departure(); }

 private:
  std::shared_ptr<SymmetricMemory> host_;
};

std::shared_ptr<PinnedRegions> pin_regions(Bootstrap& bootstrap, const GpuPlan& plan,
                                           const std::shared_ptr<SymmetricMemory>& host,
                                           const Deadline& deadline) {
  const auto make = [&] {
    return std::make_shared<PinnedRegions>(host, plan.devices[bootstrap.rank().index()]);
  };
  switch (plan.placement) {
    case HostPlacement::kOneProcess:
      return share_in_process<PinnedRegions>(bootstrap, deadline, make);
    case HostPlacement::kOneHost:
      break;
  }
  std::shared_ptr<PinnedRegions> regions;
  collective_step(bootstrap, "pinning symmetric memory", deadline, [&] {
    regions = make();
    return std::string();
  });
  return regions;
}

std::vector<std::byte*> device_addresses_of(const SymmetricMemory& host, int device) {
  std::vector<std::byte*> addresses;
  for (Rank owner(0); owner.value() < host.num_ranks(); owner = owner.next()) {
    void* address = nullptr;
    check_region(cudaHostGetDevicePointer(&address, host.region(owner), 0), "find",
                 {owner, device, host.size_bytes()}, "use GPUs that can read pinned memory");
    addresses.push_back(static_cast<std::byte*>(address));
  }
  return addresses;
}

}  // namespace

std::shared_ptr<SymmetricMemory> open_cuda_pinned(Bootstrap& bootstrap, const GpuPlan& plan,
                                                  const Deadline& deadline) {
  const Rank rank = bootstrap.rank();
  const int device = plan.devices[rank.index()];
  // Before any rank pins, which leaves the others less.
  collective_step(bootstrap, "looking for memory to pin", deadline, [&] {
    require_memory_to_pin(bootstrap.num_ranks(), plan.bytes);
    return std::string();
  });
  const auto host = open_symmetric_memory(bootstrap, plan.bytes, deadline);
  const auto pinned = pin_regions(bootstrap, plan, host, deadline);
  std::vector<std::byte*> addresses;
  collective_step(bootstrap, "mapping symmetric memory", deadline, [&] {
    addresses = device_addresses_of(*host, device);
    return std::string();
  });
  return std::make_shared<GpuMemory>(GpuMemory::Parts{"cuda_pinned", rank, plan.bytes,
                                                      std::move(addresses), pinned,
                                                      std::make_unique<HostWatch>(host)});
}

}  // namespace moelink
