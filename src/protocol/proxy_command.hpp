// Commands to the proxy and the rings that carry them: one writer per ring, in shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "moelink/host_device.hpp"

namespace moelink {

enum class CommandKind : std::uint8_t {
  kPut = 1,         // a range into a peer's region; nobody is told
  kCountedPut = 2,  // the same, and the peer counts its arrival
};

// One cache line, so that it travels whole. `turn` is written last, with release order: a slot
// holds the command of position p once it is p + 1, and whatever the command tells to send is
// complete.
struct alignas(64) ProxyCommand {
  std::uint64_t source_offset = 0;
  std::uint64_t target_offset = 0;
  std::uint64_t bytes = 0;
  std::uint64_t epoch = 0;
  std::uint32_t counter = 0;
  std::uint16_t source_region = 0;  // as registered at the proxy's transport
  std::uint16_t target_region = 0;  // as imported there, which also says whose it is
  CommandKind kind = CommandKind::kPut;
  std::uint8_t unused[15] = {};
  std::uint64_t turn = 0;  // written by the lane's producer, read by the proxy
};
static_assert(sizeof(ProxyCommand) == 64);
static_assert(offsetof(ProxyCommand, counter) == 32);
static_assert(offsetof(ProxyCommand, kind) == 40);
static_assert(offsetof(ProxyCommand, turn) == 56);
static_assert(std::is_trivially_copyable_v<ProxyCommand>);

// What the proxy tells the producer of a lane. Written by the proxy only, with release order.
struct alignas(64) LaneProgress {
  std::uint64_t num_taken = 0;      // slots below this are free again
  std::uint64_t num_completed = 0;  // source ranges of commands below this may be reused
  std::uint64_t failed = 0;         // 1 once the proxy has stopped because of an error
  std::uint64_t unused[5] = {};
};
static_assert(sizeof(LaneProgress) == 64);

// Byte map of all lanes: for each its LaneProgress, then its slots.
struct RingLayout {
  std::uint32_t num_lanes = 0;
  std::uint32_t num_slots = 0;  // per lane, a power of two

  MOELINK_HD constexpr std::size_t lane_bytes() const {
    return sizeof(LaneProgress) + std::size_t{num_slots} * sizeof(ProxyCommand);
  }
  MOELINK_HD constexpr std::size_t total_bytes() const { return lane_bytes() * num_lanes; }
  MOELINK_HD constexpr std::size_t progress_offset(std::uint32_t lane) const {
    return lane_bytes() * lane;
  }
  MOELINK_HD constexpr std::size_t slot_offset(std::uint32_t lane, std::uint64_t position) const {
    return progress_offset(lane) + sizeof(LaneProgress) +
           static_cast<std::size_t>(position & (num_slots - 1)) * sizeof(ProxyCommand);
  }
  // Commands that the producer may still push, having pushed so many.
  MOELINK_HD constexpr std::uint64_t num_credits(std::uint64_t num_pushed,
                                                 std::uint64_t num_taken) const {
    return num_slots - (num_pushed - num_taken);
  }
};

MOELINK_HD constexpr std::uint64_t turn_of(std::uint64_t position) { return position + 1; }

}  // namespace moelink
