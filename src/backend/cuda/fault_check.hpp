// What the host makes of a fault that a kernel of its rank has raised.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "device/domain.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink {

// Pinned memory that kernels and host share; a report follows it.
struct HostMailbox {
  device::Fault fault;
  std::uint32_t cancelled;  // written by the host: all waits of this rank's kernels end
};

// Shared by a buffer, its events and its handles, which may outlive it. Thread-safe.
class FaultCheck {
 public:
  // `mailbox` owns a HostMailbox; `memory` is asked for the peers' reasons while it lives.
  FaultCheck(std::shared_ptr<const std::byte> mailbox,
             const std::shared_ptr<const SymmetricMemory>& memory,
             std::chrono::milliseconds timeout);

  bool is_raised() const;
  // Throws Error(kTimeout) or Error(kPeerLost) if a kernel has given up in an operation up to
  // `last`, Error(kInvalidArgument) if it has refused the ranks' calls.
  void throw_if_raised(Epoch last = Epoch(std::numeric_limits<std::uint64_t>::max())) const;

 private:
  const device::Fault& fault() const;
  // The rank that has died: the one waited for if it has, otherwise the first that has.
  Rank dead_rank(const SymmetricMemory& memory, Rank awaited) const;
  // Why a peer gave up, as far as it has said; otherwise empty.
  std::string reason_of(const SymmetricMemory& memory, Rank peer) const;
  std::string text_of_loss(const device::Fault& fault) const;
  std::string text_of_refusal(const device::Fault& fault) const;

  std::shared_ptr<const std::byte> mailbox_;
  std::weak_ptr<const SymmetricMemory> memory_;
  Rank rank_;
  std::chrono::milliseconds timeout_;
};

}  // namespace moelink
