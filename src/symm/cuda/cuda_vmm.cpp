// Maps one allocation per rank. Descriptors pass between processes over Unix sockets, fabric
// handles with the tickets of the ranks.
#include "symm/cuda/cuda_vmm.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "symm/collective_step.hpp"
#include "symm/cuda/device_address_range.hpp"
#include "symm/peer_meeting.hpp"

namespace moelink {
namespace {

// What a rank can prepare, and find impossible, without the others.
class OwnPart {
 public:
  OwnPart(Rank rank, const GpuPlan& plan, Sharing sharing)
      : rank_(rank),
        sharing_(sharing),
        device_(plan.devices[rank.index()]),
        bytes_(plan.bytes),
        range_(std::make_shared<DeviceAddressRange>(static_cast<int>(plan.devices.size()), bytes_)),
        allocation_(DeviceAllocation::make(site_of(rank), sharing)),
        descriptor_(sharing == Sharing::kDescriptor ? allocation_.export_descriptor(site_of(rank))
                                                    : UniqueFd()),
        meeting_(static_cast<int>(plan.devices.size())) {
    range_->map(allocation_, site_of(rank), {&device_, 1});
    clear_region(range_->region(rank), site_of(rank));
  }

  // A PeerTicket, and for a fabric the handle behind it.
  std::string ticket() const {
    std::string text = meeting_.ticket();
    if (sharing_ == Sharing::kFabric) text += allocation_.export_fabric(site_of(rank_));
    return text;
  }

  PeerMeeting& meeting() { return meeting_; }
  const std::shared_ptr<DeviceAddressRange>& range() const { return range_; }

  void map_peers(PeerLinks& links, const std::vector<std::string>& tickets,
                 const Deadline& deadline) {
    if (sharing_ == Sharing::kFabric) {
      map_handles(tickets);
    } else {
      map_descriptors(links, deadline);
    }
  }

 private:
  void map_descriptors(PeerLinks& links, const Deadline& deadline) {
    const std::vector<UniqueFd> received = links.exchange_descriptors(descriptor_.get(), deadline);
    for (std::size_t peer = 0; peer < received.size(); ++peer) {
      if (!received[peer].valid()) continue;
      const RegionSite site = site_of(Rank(static_cast<std::int32_t>(peer)));
      range_->map(DeviceAllocation::import_descriptor(received[peer].get(), site), site,
                  {&device_, 1});
    }
  }
  void map_handles(const std::vector<std::string>& tickets) {
    for (Rank peer(0); peer.index() < tickets.size(); peer = peer.next()) {
      if (peer == rank_) continue;
      const std::string_view ticket = tickets[peer.index()];
      const RegionSite site = site_of(peer);
      range_->map(DeviceAllocation::import_fabric(
                      ticket.substr(std::min(ticket.size(), PeerTicket::kTextBytes)), site),
                  site, {&device_, 1});
    }
  }

  // All mappings here are for the own device.
  RegionSite site_of(Rank owner) const { return {owner, device_, bytes_}; }

  Rank rank_;
  Sharing sharing_;
  int device_;
  std::size_t bytes_;
  std::shared_ptr<DeviceAddressRange> range_;
  DeviceAllocation allocation_;
  UniqueFd descriptor_;
  PeerMeeting meeting_;
};

}  // namespace

std::shared_ptr<SymmetricMemory> open_cuda_vmm(Bootstrap& bootstrap, const GpuPlan& plan,
                                               Sharing sharing, const Deadline& deadline) {
  const Rank rank = bootstrap.rank();
  std::optional<OwnPart> own;
  const std::vector<std::string> tickets =
      collective_step(bootstrap, "making symmetric memory", deadline, [&] {
        own.emplace(rank, plan, sharing);
        return own->ticket();
      });

  std::unique_ptr<PeerLinks> links;
  collective_step(bootstrap, "mapping symmetric memory", deadline, [&] {
    links = own->meeting().link_up(rank, tickets, deadline);
    own->map_peers(*links, tickets, deadline);
    return std::string();
  });
  links->watch_processes();
  const char* const kind = sharing == Sharing::kFabric ? "cuda_fabric" : "cuda_vmm";
  return std::make_shared<GpuMemory>(GpuMemory::Parts{
      kind, rank, plan.bytes, own->range()->regions(), own->range(), std::move(links)});
}

}  // namespace moelink
