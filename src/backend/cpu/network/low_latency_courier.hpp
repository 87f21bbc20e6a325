// Low latency messages between ranks of different nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/low_latency/low_latency_context.hpp"
#include "backend/cpu/network/relay_wait.hpp"
#include "protocol/low_latency_layout.hpp"

namespace moelink {

// Puts into this rank's area what ranks of other nodes send, as they would themselves if they
// shared its memory: entries and rows that come back go to their places in the area, rows of tokens
// to a copy of the source's outbox (LowLatencyContext::far_outbox).
class LowLatencyCourier {
 public:
  LowLatencyCourier(CpuContext& context, LowLatencyContext& low_latency)
      : context_(context), low_latency_(low_latency) {}

  struct Letter {
    LowLatencyHeader header{};  // num_tokens: of the whole message
    std::size_t entry_bytes = 0;
    std::size_t row_bytes = 0;  // a multiple of 16
    // Writes the entry and the row of one of its tokens.
    std::function<void(std::size_t i, std::byte* entry, std::byte* row)> write;
  };
  // Throws Error(kUnsupported) if a token does not fit a message.
  void require_fit(Operation operation, std::size_t entry_bytes, std::size_t row_bytes) const;
  // Waits for room. Throws Error(kPeerLost) or Error(kTimeout); with Survival::kMask masks the peer
  // instead.
  void send(Rank peer, const Letter& letter);

  // Takes in what has arrived for the open area and drops what is left of earlier ones. Returns the
  // number of messages.
  int deliver();
  // Whether an area is open. What arrives before waits in the network.
  bool can_deliver() const { return low_latency_.block && !low_latency_.is_given_up(); }

 private:
  std::span<std::byte> await_slot(Rank peer, RelayWait& wait);
  void send_parts(Rank peer, const Letter& letter);
  int deliver_from(Rank source);
  bool is_old(Epoch epoch) const;
  void deliver_part(Rank source, const LowLatencyPart& part, const std::byte* content);
  void check_part(Rank source, const LowLatencyPart& part, std::size_t num_bytes) const;
  void take_tokens(Rank source, const LowLatencyPart& part, const std::byte* content);
  void take_returns(Rank source, const LowLatencyPart& part, const std::byte* content);

  CpuContext& context_;
  LowLatencyContext& low_latency_;
};

}  // namespace moelink
