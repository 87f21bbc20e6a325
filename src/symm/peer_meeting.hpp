// The way from a bootstrap to linked peers, in two steps that ranks take together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "symm/peer_links.hpp"

namespace moelink {

// First step: listens, and sets aside the descriptors that linking up and exchanging one descriptor
// with every peer will need: running out of them later, between two ranks, would be harder to tell
// the others. Throws Error(kSystem) if the process may not have so many.
class PeerMeeting {
 public:
  explicit PeerMeeting(int num_ranks);

  // To be exchanged between the steps; always PeerTicket::kTextBytes long.
  std::string ticket() const { return listener_.ticket().encode(); }

  // Second step, collective, once: each text begins with the ticket of the rank at its position.
  std::unique_ptr<PeerLinks> link_up(Rank rank, const std::vector<std::string>& texts,
                                     const Deadline& deadline);

 private:
  void reserve_descriptors(int count);

  PeerListener listener_;
  std::vector<UniqueFd> reserved_;
};

}  // namespace moelink
