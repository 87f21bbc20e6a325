// Puts signals into peers' regions and waits for theirs: the only waits of the CPU backend.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backend/cpu/control_area.hpp"
#include "backend/cpu/rank_masks.hpp"
#include "base/deadline.hpp"
#include "moelink/config.hpp"
#include "moelink/trace.hpp"
#include "protocol/signal.hpp"
#include "transport/backoff.hpp"

namespace moelink {

class RemoteControl;

// What a wait is for: the words that its error message needs.
struct WaitContext {
  Operation operation;
  Stage stage;
  Deadline deadline;
  // Of low latency waits: the last operation whose exchange this rank has begun. A peer that has
  // begun a later one instead of signalling has made another call.
  std::optional<Epoch> exchanged{};
  // Called whenever the wait has looked in vain; may be null.
  const std::function<void()>* meanwhile = nullptr;
};

// Used by one thread at a time, except raise(). With ranks of other nodes, see connect(): signals
// about memory (delivered, staged, consumed) concern the ranks of this node only, and are neither
// put to others nor awaited from them.
class SignalBoard {
 public:
  using Cores = Backoff::Cores;

  SignalBoard(std::shared_ptr<ControlArea> control, Cores cores,
              Survival survival = Survival::kRaise);

  // Peers that are left out: nothing is put to them, and waits for them end at once.
  RankMasks& masks() { return masks_; }

  // From now on, ranks of other nodes take part. `remote` must outlive this.
  void connect(RemoteControl& remote) { remote_ = &remote; }

  // Makes everything written before visible to `peer`, then sets its word and rings its doorbell.
  // Exchanges and masks tell ranks of other nodes themselves that they are complete.
  void put(Rank peer, SignalChannel channel, SignalValue value);
  void put_all(SignalChannel channel, SignalValue value);  // to all unmasked peers but this rank

  // Returns true when `peer` has reached `value`, false if it is masked. A lost peer is masked now,
  // or makes this throw, as Survival says: Error(kPeerLost) if a peer died or gave up,
  // Error(kTimeout) at the deadline; both name rank, peer, stage, expected and seen value. Throws
  // Error(kInvalidArgument) if `peer` has made another call.
  bool wait(Rank peer, SignalChannel channel, SignalValue value, const WaitContext& context);
  void wait_all(SignalChannel channel, SignalValue value, const WaitContext& context);

  // The last value that `peer` has put.
  SignalValue seen(Rank peer, SignalChannel channel) const;

  // Throws Error(kPeerLost) if a peer has given up before finishing the operation of `epoch`.
  void check_faults(Epoch epoch, const WaitContext& context) const;

  // Tells all peers that this rank gives up from operation `first_missed` on, and wakes them.
  void raise(const std::string& reason, Epoch first_missed);

 private:
  bool reached(Rank peer, SignalChannel channel, SignalValue value) const;
  // The two halves of a wait: before sleeping, and with sleeps.
  bool reached_soon(Rank peer, SignalChannel channel, SignalValue value) const;
  void await_near(Rank peer, SignalChannel channel, SignalValue value, const WaitContext& context);
  void await_with_network(Rank peer, SignalChannel channel, SignalValue value,
                          const WaitContext& context);
  void sleep_until_rung(Rank peer, SignalChannel channel, SignalValue value,
                        const WaitContext& context);
  std::uint32_t awaited_code(SignalChannel channel, Rank source) const;
  // Returns what `peer` sleeps for; see Doorbell.
  std::uint32_t ring(Rank peer);
  std::string describe(Rank peer, const WaitContext& context) const;
  void check_peers(Rank awaited, SignalChannel channel, SignalValue value,
                   const WaitContext& context) const;
  void check_all_peers(Rank awaited, SignalChannel channel, SignalValue value,
                       const WaitContext& context) const;
  void check_peer(Rank peer, SignalChannel channel, SignalValue value,
                  const WaitContext& context) const;
  void check_same_call(Rank peer, SignalChannel channel, SignalValue value,
                       const WaitContext& context) const;

  std::shared_ptr<ControlArea> control_;
  RankMasks masks_;
  Survival survival_;
  Cores cores_;
  int num_spins_;
  RemoteControl* remote_ = nullptr;
};

}  // namespace moelink
