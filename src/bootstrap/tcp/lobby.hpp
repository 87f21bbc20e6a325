// Rank 0's wait for the others: admits who proves the secret, turns away everybody else.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/tcp/handshake.hpp"
#include "bootstrap/tcp/peers.hpp"
#include "bootstrap/tcp/pending_connection.hpp"
#include "bootstrap/tcp/tcp_options.hpp"

namespace moelink::tcp {

inline constexpr std::string_view kRendezvousName = "rendezvous";

// No connection can hold up another one: nothing here waits for a single connection, each has its
// own deadline, and their number is bounded.
class Lobby {
 public:
  Lobby(UniqueFd listener, const Credentials& credentials, int num_ranks,
        const TcpOptions& options);

  // Returns when all ranks have joined and have been told so. Otherwise tells those who have joined
  // and throws Error(kTimeout) or Error(kPeerLost). `peers` starts empty.
  void wait_for_all(Peers& peers, const Deadline& deadline);

 private:
  [[noreturn]] void give_up(Peers& peers, Failure failure);
  void run_round(Peers& peers, const Deadline& deadline);
  std::chrono::nanoseconds longest_sleep(const Deadline& deadline) const;
  void accept_connections();
  void make_room();
  void advance_pending(const PollSet& set, Peers& peers);
  void log_refusal(const std::string& peer, const std::string& reason);

  UniqueFd listener_;
  const Credentials& credentials_;
  TcpOptions options_;
  int num_ranks_;
  std::size_t max_pending_;
  std::list<PendingConnection> pending_;  // oldest first
  std::uint64_t num_refused_ = 0;
};

}  // namespace moelink::tcp
