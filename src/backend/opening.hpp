// How the ranks of a group agree on a buffer before it exists.
#pragma once

#include <cstdint>
#include <vector>

#include "base/deadline.hpp"
#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "moelink/version.hpp"

namespace moelink {

// What a rank brings. Device kind, versions and counts must be equal, or the ranks would look for
// signals in different places.
struct OpeningTicket {
  std::int64_t protocol_version = kProtocolVersion;
  std::int64_t max_num_experts = 0;
  std::int64_t num_nodes = 0;
  std::uint64_t bytes = 0;        // of symmetric memory that the rank proposes; the least counts
  std::int64_t network = 0;       // what MOELINK_NETWORK says: 0 auto, 1 libfabric, 2 loopback,
                                  // 3 memory
  std::int64_t network_path = 0;  // NetworkPath
  std::int64_t survival = 0;      // Survival
  DeviceKind device_kind = DeviceKind::kCpu;
  std::int32_t device = 0;
  std::int32_t num_devices = 0;  // that the rank's process sees; 0 on the CPU
  char device_id[16] = {};       // UUID of a GPU

  // Of a GPU buffer.
  bool has_device() const { return device >= 0 && device < num_devices; }
};

// Collective. Everybody's tickets, in rank order. Throws Error(kInvalidArgument) at all ranks,
// naming what differs, its values and ranks.
std::vector<OpeningTicket> exchange_tickets(const Group& group, const OpeningTicket& mine,
                                            const Deadline& deadline);

// Unique in this process: handles know their buffer by it.
std::uint64_t next_buffer_id();

std::uint64_t least_bytes(const std::vector<OpeningTicket>& tickets);

}  // namespace moelink
