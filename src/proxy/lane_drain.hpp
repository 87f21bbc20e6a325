// Turns commands into puts and completions into free ranges: the proxy's work without its thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/deadline.hpp"
#include "proxy/lane.hpp"
#include "transport/transport.hpp"

namespace moelink {

// Used by one thread; the two numbers may be read by any.
class LaneDrain {
 public:
  LaneDrain(Transport& transport, std::vector<LaneReader> lanes, std::chrono::milliseconds timeout);

  // Makes the transport progress, takes commands in turn from all lanes, reports completions.
  // Returns the number of events. Throws Error(kTimeout) naming lane and peer when a put finds no
  // room, or does not complete, for the time limit; what the transport throws; and
  // Error(kInvalidArgument) for a command that is none.
  int drain_round();
  bool has_work() const;
  void publish_failure();

  std::uint64_t num_commands() const { return num_commands_.load(std::memory_order_relaxed); }
  std::uint64_t num_refusals() const { return num_refusals_.load(std::memory_order_relaxed); }

 private:
  struct Lane {
    LaneReader reader;
    std::optional<Deadline> refused_until;  // set while its first command finds no room
  };
  struct InFlight {
    std::uint64_t put_number = 0;
    std::size_t lane = 0;
    std::uint64_t position = 0;
    Rank peer;
  };

  int drain_lane(std::size_t lane_idx);
  void note_refusal(Lane& lane, const Put& put);
  int report_completions();
  void check_stall();

  Transport& transport_;
  std::chrono::milliseconds timeout_;
  std::vector<Lane> lanes_;
  std::deque<InFlight> in_flight_;          // in the order of their numbers
  std::optional<Deadline> completion_due_;  // set while puts are in flight
  std::atomic<std::uint64_t> num_commands_{0};
  std::atomic<std::uint64_t> num_refusals_{0};
};

// Throws Error(kInvalidArgument) for an unknown kind.
Put put_of(const ProxyCommand& command);
// The command that makes the proxy put so. Puts in pieces have none.
ProxyCommand command_of(const Put& put);

}  // namespace moelink
