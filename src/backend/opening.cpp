// Exchange and comparison of opening tickets.
#include "backend/opening.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "base/check.hpp"
#include "bootstrap/bootstrap.hpp"

namespace moelink {
namespace {

const char* kind_name(DeviceKind kind) { return kind == DeviceKind::kCuda ? "cuda" : "cpu"; }

std::vector<OpeningTicket> gather_tickets(const Group& group, const OpeningTicket& mine,
                                          const Deadline& deadline) {
  std::string blob(sizeof(OpeningTicket), '\0');
  std::memcpy(blob.data(), &mine, sizeof(mine));
  const std::vector<std::string> blobs =
      group.bootstrap().all_gather(blob, "comparing buffer configurations", deadline);
  std::vector<OpeningTicket> tickets(blobs.size());
  for (std::size_t rank = 0; rank < blobs.size(); ++rank) {
    tickets[rank].protocol_version = -1;  // what a rank of another version sends is not understood
    if (blobs[rank].size() != sizeof(OpeningTicket)) continue;
    std::memcpy(&tickets[rank], blobs[rank].data(), sizeof(OpeningTicket));
  }
  return tickets;
}

}  // namespace

std::vector<OpeningTicket> exchange_tickets(const Group& group, const OpeningTicket& mine,
                                            const Deadline& deadline) {
  std::vector<OpeningTicket> tickets = gather_tickets(group, mine, deadline);
  Violations violations(
      fmt::format("Buffer (rank {}): the ranks' configurations differ", group.rank().value()));
  const OpeningTicket& first = tickets.front();
  for (std::size_t rank = 0; rank < tickets.size(); ++rank) {
    const OpeningTicket& other = tickets[rank];
    const auto compare = [&](const char* name, std::int64_t seen, std::int64_t expected) {
      violations.require(seen == expected, "{} is {} on rank {} but {} on rank 0", name, seen, rank,
                         expected);
    };
    compare("protocol version", other.protocol_version, first.protocol_version);
    if (other.protocol_version != mine.protocol_version) continue;
    violations.require(other.device_kind == mine.device_kind,
                       "device is {} on rank {} but not on rank {}", kind_name(mine.device_kind),
                       group.rank().value(), rank);
    compare("max_num_experts", other.max_num_experts, first.max_num_experts);
    compare("num_nodes", other.num_nodes, first.num_nodes);
    compare("MOELINK_NETWORK (0 auto, 1 libfabric, 2 loopback, 3 memory)", other.network,
            first.network);
    compare("network_path (1 hierarchical, 2 direct)", other.network_path, first.network_path);
    compare("survival (0 raise, 1 mask)", other.survival, first.survival);
  }
  violations.throw_if_any();
  return tickets;
}

std::uint64_t next_buffer_id() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1) + 1;
}

std::uint64_t least_bytes(const std::vector<OpeningTicket>& tickets) {
  return std::ranges::min_element(tickets, {}, &OpeningTicket::bytes)->bytes;
}

}  // namespace moelink
