// Chooses a transport and the sizes of messages.
#include "backend/open_network.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "base/environment.hpp"
#include "protocol/control_message.hpp"
#include "symm/host_identity.hpp"
#include "transport/open_transport.hpp"

namespace moelink {
namespace {

constexpr const char* kWishes[] = {"auto", "libfabric", "loopback", "memory"};

// Small enough that a message is still in a core's cache when it is sent, and again when it is
// forwarded: slots of 1 MiB took a fifth longer over tcp and shm (docs/performance.md). Several, so
// that one is filled and one emptied while others travel.
constexpr std::size_t kTokenSlotBytes = std::size_t{1} << 18;
constexpr std::uint32_t kNumTokenSlots = 8;

// Together they take 128 tokens of 7168 bfloat16 with room to spare, so that a rank that sends does
// not wait for one that does other things.
constexpr std::size_t kLowLatencySlotBytes = std::size_t{1} << 18;
constexpr std::uint32_t kNumLowLatencySlots = 12;

MessageArea make_area(const Topology& topology, NetworkPath path, int max_num_experts) {
  MessageArea area{.topology = topology};
  const std::size_t control_bytes =
      sizeof(MessageHeader) + max_control_message_bytes(topology.num_ranks, max_num_experts);
  area.channels[static_cast<std::size_t>(MessageChannel::kControl)] = {
      .peers = MessagePeers::kAll,
      .ring = {.num_slots = kNumMessageLanes,
               .slot_bytes = align_up(control_bytes, alignof(MessageHeader)),
               .num_to_ack = kNumMessageLanes / 4}};
  area.channels[static_cast<std::size_t>(MessageChannel::kTokens)] = {
      .peers = path == NetworkPath::kDirect ? MessagePeers::kAll : MessagePeers::kRail,
      .ring = {.num_slots = kNumTokenSlots, .slot_bytes = kTokenSlotBytes, .num_to_ack = 1}};
  area.channels[static_cast<std::size_t>(MessageChannel::kLowLatency)] = {
      .peers = MessagePeers::kAll,
      .ring = {.num_slots = kNumLowLatencySlots,
               .slot_bytes = kLowLatencySlotBytes,
               .num_to_ack = kNumLowLatencySlots / 4}};
  return area;
}

std::vector<HostIdentity> find_hosts(const Group& group, const Deadline& deadline) {
  const std::string mine = HostIdentity::of_this_process(1).encode();
  std::vector<HostIdentity> hosts;
  for (const std::string& blob :
       group.bootstrap().all_gather(mine, "finding the hosts of ranks", deadline)) {
    hosts.push_back(HostIdentity::decode(blob));
  }
  return hosts;
}

std::string choose_kind(const Group& group, const Deadline& deadline) {
  const std::string& wish = environment().network;
  if (wish != "auto") return wish;
  const std::vector<HostIdentity> hosts = find_hosts(group, deadline);
  const bool one_process = std::ranges::all_of(
      hosts, [&](const HostIdentity& other) { return hosts.front().same_process(other); });
  return one_process ? "loopback" : "libfabric";
}

}  // namespace

std::int64_t wished_network() {
  return std::ranges::find(kWishes, environment().network) - std::begin(kWishes);
}

NetworkPath choose_network_path(const BufferConfig& config) {
  if (config.network_path != NetworkPath::kAuto) return config.network_path;
  if (environment().network_mode == "direct") return NetworkPath::kDirect;
  if (environment().network_mode == "hierarchical") return NetworkPath::kHierarchical;
  return config.survival == Survival::kMask ? NetworkPath::kDirect : NetworkPath::kHierarchical;
}

bool uses_network(const Topology& topology) {
  return topology.num_nodes > 1 && environment().network != "memory";
}

int count_ranks_on_host(const Group& group, const Deadline& deadline) {
  const std::vector<HostIdentity> hosts = find_hosts(group, deadline);
  return static_cast<int>(std::ranges::count_if(hosts, [&](const HostIdentity& other) {
    return hosts[group.rank().index()].same_host(other);
  }));
}

std::unique_ptr<Network> open_network(const Group& group, NetworkPath path, int max_num_experts,
                                      const Deadline& deadline) {
  TransportGroup members{.rank = group.rank(), .num_ranks = group.num_ranks()};
  members.all_gather = [&group](const std::string& blob, const char* what, const Deadline& until) {
    return group.bootstrap().all_gather(blob, what, until);
  };
  const TransportConfig config{.num_counters = num_message_counters(),
                               .num_epoch_lanes = kNumMessageLanes,
                               .provider = environment().fabric_provider,
                               .max_nics = environment().max_nics};
  const std::string kind = choose_kind(group, deadline);
  std::unique_ptr<Transport> transport;
  try {
    transport = open_transport(kind, members, config, deadline);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported) throw;
    fail(ErrorCode::kUnsupported,
         "Buffer (rank {}): no network between {} nodes: {}. Emulated nodes of one host may share "
         "memory instead: MOELINK_NETWORK=memory",
         group.rank().value(), group.topology().num_nodes, error.what());
  }
  return std::make_unique<Network>(std::move(transport), members,
                                   make_area(group.topology(), path, max_num_experts), deadline);
}

}  // namespace moelink
