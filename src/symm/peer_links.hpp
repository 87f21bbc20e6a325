// One connected Unix socket between each two ranks: carries descriptors, then shows who is alive.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "moelink/types.hpp"
#include "symm/peer_watch.hpp"
#include "symm/random_token.hpp"

namespace moelink {

// What a rank tells the others through the bootstrap before they connect.
struct PeerTicket {
  static constexpr std::size_t kTextBytes = 2 * RandomToken::kBytes;

  RandomToken socket_name;
  RandomToken proof;  // the rank shows it to those it connects to

  std::string encode() const;
  static PeerTicket decode(std::string_view text);
};

class PeerListener {
 public:
  explicit PeerListener(int num_ranks);

  const PeerTicket& ticket() const { return ticket_; }
  int socket() const { return socket_.get(); }

 private:
  PeerTicket ticket_;
  UniqueFd socket_;
};

class PeerLinks final : public PeerWatch {
 public:
  // Collective: every rank connects to all lower ones. Connections of other users or without the
  // right proof are logged, closed and otherwise ignored. `tickets` is in rank order.
  PeerLinks(Rank rank, const PeerListener& listener, const std::vector<PeerTicket>& tickets,
            const Deadline& deadline);

  // Collective: gives `own` to every peer; returns what they gave, in rank order (the own place is
  // invalid). Throws Error(kPeerLost) or Error(kTimeout) naming the peer.
  std::vector<UniqueFd> exchange_descriptors(int own, const Deadline& deadline);

  // From then on peers are also taken for dead when their process has ended although a process that
  // it forked still holds the socket. Best effort.
  void watch_processes();

  // Once false, always false.
  bool alive(Rank peer) const override;
  void announce_departure() override;

 private:
  struct Link {
    UniqueFd socket;
    UniqueFd process;  // readable once the peer's process has ended; may be invalid
    std::atomic<bool> dead{false};
  };

  Link& link(std::size_t peer) const { return *links_[peer]; }
  void connect_to_lower(const PeerTicket& own, const std::vector<PeerTicket>& tickets,
                        const Deadline& deadline);
  void accept_higher(const PeerListener& listener, const std::vector<PeerTicket>& tickets,
                     const Deadline& deadline);
  UniqueFd receive_from(std::size_t peer, const Deadline& deadline);

  Rank rank_;
  std::vector<std::unique_ptr<Link>> links_;
  std::atomic<bool> departed_{false};
};

}  // namespace moelink
