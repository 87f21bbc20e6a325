// Carries control words and blocks between ranks of different nodes.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>

#include "backend/cpu/control_area.hpp"
#include "backend/cpu/rank_masks.hpp"
#include "base/deadline.hpp"
#include "moelink/config.hpp"
#include "network/network.hpp"
#include "protocol/control_message.hpp"

namespace moelink {

class LowLatencyCourier;

// Puts into this rank's control area what ranks of other nodes tell it, as they would themselves if
// they shared its memory. Used by the thread of the buffer's stream.
class RemoteControl {
 public:
  RemoteControl(std::shared_ptr<ControlArea> control, Network& network, RankMasks& masks,
                Survival survival, std::chrono::milliseconds timeout)
      : control_(std::move(control)),
        network_(network),
        masks_(masks),
        survival_(survival),
        timeout_(timeout) {}

  // From now on pump() takes in low latency messages, too. `courier` must outlive this.
  void connect(LowLatencyCourier& courier) { courier_ = &courier; }

  // Each sends a message. Throws Error(kTimeout) if the peer takes none for too long; with
  // Survival::kMask masks the peer instead. A peer that is lost is left to who waits for it.
  void send_signal(Rank peer, SignalChannel channel, SignalValue value);
  void send_exchange(Rank peer, Epoch epoch, const ExchangeBlock& block,
                     std::span<const std::int32_t> count_row);
  // This rank's flags of the epoch, as they are in its own region.
  void send_masks(Rank peer, SignalValue round);
  // Tells all why this rank gives up. Does not throw, and takes a second at most.
  void send_fault() noexcept;

  // Makes the network move and takes in what has arrived. Returns the number of events.
  int pump();
  // Until everything sent has left, as peers may wait for it while this rank does other things.
  void flush();
  // For those who wait for `peer`: throws what has befallen it, if that is known.
  void look_after(Rank peer, const char* stage);

 private:
  template <class Send>
  void guard(Rank peer, const Send& send);
  std::span<std::byte> await_slot(Rank peer, const Deadline& deadline);
  void send(Rank peer, ControlMessage message, std::span<const std::byte> first,
            std::span<const std::byte> second, const Deadline& deadline);
  int deliver_from(Rank source);
  void deliver(Rank source, const ControlMessage& message, const std::byte* content);

  std::shared_ptr<ControlArea> control_;
  Network& network_;
  RankMasks& masks_;
  Survival survival_;
  std::chrono::milliseconds timeout_;
  LowLatencyCourier* courier_ = nullptr;
  std::chrono::steady_clock::time_point last_probe_{};
};

}  // namespace moelink
