// Opens the handle of every rank's allocation.
#include "symm/cuda/cuda_ipc.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "symm/collective_step.hpp"
#include "symm/cuda/device_address_range.hpp"
#include "symm/peer_meeting.hpp"

namespace moelink {
namespace {

void require_aligned(const std::byte* region, const RegionSite& site) {
  if (reinterpret_cast<std::uintptr_t>(region) % kRegionAlignment == 0) return;
  fail(ErrorCode::kUnsupported,
       "CUDA put the region of rank {} ({} bytes, device {}) at {}, expected a multiple of {}; set "
       "MOELINK_CUDA_MEMORY to pinned",
       site.owner.value(), site.bytes, site.device, fmt::ptr(region), kRegionAlignment);
}

std::shared_ptr<std::byte> make_region(const RegionSite& site) {
  void* memory = nullptr;
  check_region(cudaMalloc(&memory, site.bytes), "allocate", site, kAskForLess);
  std::shared_ptr<std::byte> region(static_cast<std::byte*>(memory),
                                    [](std::byte* pointer) { cudaFree(pointer); });
  require_aligned(region.get(), site);
  clear_region(region.get(), site);
  return region;
}

// Closing needs the device that opened, and must not throw.
void close_handle(std::byte* region, int device) {
  int previous = 0;
  if (cudaGetDevice(&previous) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) return;
  cudaIpcCloseMemHandle(region);
  cudaSetDevice(previous);
}

std::string encode_handle(std::byte* region, const RegionSite& site) {
  cudaIpcMemHandle_t handle{};
  check_region(cudaIpcGetMemHandle(&handle, region), "export", site,
               "set MOELINK_CUDA_MEMORY to pinned");
  return std::string(reinterpret_cast<const char*>(&handle), sizeof(handle));
}

std::shared_ptr<std::byte> open_region(std::string_view encoded, const RegionSite& site) {
  cudaIpcMemHandle_t handle{};
  if (encoded.size() != sizeof(handle)) {
    fail(ErrorCode::kInternal, "rank {} sent a handle of {} bytes, expected {}", site.owner.value(),
         encoded.size(), sizeof(handle));
  }
  std::memcpy(&handle, encoded.data(), sizeof(handle));
  void* memory = nullptr;
  check_region(cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess), "open", site,
               "let every rank see all GPUs, or set MOELINK_CUDA_MEMORY to pinned");
  std::shared_ptr<std::byte> region(
      static_cast<std::byte*>(memory),
      [device = site.device](std::byte* pointer) { close_handle(pointer, device); });
  require_aligned(region.get(), site);
  return region;
}

using Regions = std::vector<std::shared_ptr<std::byte>>;

// `texts` are tickets, each with a handle behind it.
Regions open_peers(std::shared_ptr<std::byte> own, const std::vector<std::string>& texts,
                   const RegionSite& own_site) {
  Regions regions;
  for (Rank owner(0); owner.index() < texts.size(); owner = owner.next()) {
    if (owner == own_site.owner) {
      regions.push_back(std::move(own));
      continue;
    }
    const std::string_view text = texts[owner.index()];
    regions.push_back(open_region(text.substr(std::min(text.size(), PeerTicket::kTextBytes)),
                                  {owner, own_site.device, own_site.bytes}));
  }
  return regions;
}

std::vector<std::byte*> addresses_of(const Regions& regions) {
  std::vector<std::byte*> addresses;
  for (const auto& region : regions) addresses.push_back(region.get());
  return addresses;
}

}  // namespace

std::shared_ptr<SymmetricMemory> open_cuda_ipc(Bootstrap& bootstrap, const GpuPlan& plan,
                                               const Deadline& deadline) {
  const Rank rank = bootstrap.rank();
  const RegionSite site{rank, plan.devices[rank.index()], plan.bytes};
  std::shared_ptr<std::byte> own;
  std::optional<PeerMeeting> meeting;
  const std::vector<std::string> texts =
      collective_step(bootstrap, "making symmetric memory", deadline, [&] {
        own = make_region(site);
        meeting.emplace(bootstrap.num_ranks());
        return meeting->ticket() + encode_handle(own.get(), site);
      });

  std::unique_ptr<PeerLinks> links;
  const auto regions = std::make_shared<Regions>();
  collective_step(bootstrap, "mapping symmetric memory", deadline, [&] {
    links = meeting->link_up(rank, texts, deadline);
    *regions = open_peers(std::move(own), texts, site);
    return std::string();
  });
  links->watch_processes();
  return std::make_shared<GpuMemory>(GpuMemory::Parts{
      "cuda_ipc", rank, plan.bytes, addresses_of(*regions), regions, std::move(links)});
}

}  // namespace moelink
