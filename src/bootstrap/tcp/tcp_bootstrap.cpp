// Checks the config and opens rank 0's or another rank's end.
#include "bootstrap/tcp/tcp_bootstrap.hpp"

#include <utility>

#include "base/check.hpp"
#include "bootstrap/membership.hpp"
#include "bootstrap/tcp/handshake.hpp"
#include "bootstrap/tcp/join.hpp"
#include "bootstrap/tcp/socket.hpp"
#include "bootstrap/tcp/tcp_host.hpp"
#include "bootstrap/tcp/tcp_member.hpp"
#include "bootstrap/threads/thread_bootstrap.hpp"

namespace moelink {

std::unique_ptr<Bootstrap> open_tcp_bootstrap(const RendezvousConfig& config,
                                              const Deadline& deadline,
                                              const tcp::TcpOptions& options) {
  check_membership("TCP rendezvous", config.rank, config.num_ranks);
  if (config.num_ranks == 1) return std::move(ThreadBootstrap::make(1).front());
  const tcp::Credentials credentials(config.rank, config.secret);
  if (config.host.empty() || config.port == 0) {
    fail(ErrorCode::kInvalidArgument,
         "rank {}: rendezvous at host '{}', port {}: expected a host and a port from 1 to 65535",
         config.rank.value(), config.host, config.port);
  }
  const tcp::Endpoint endpoint{config.host, config.port};
  if (config.rank == Rank(0)) {
    return std::make_unique<tcp::TcpHost>(tcp::listen_at(endpoint, deadline), credentials,
                                          config.num_ranks, options, deadline);
  }
  return std::make_unique<tcp::TcpMember>(tcp::Joiner{config.rank, config.num_ranks, endpoint},
                                          credentials, options, deadline);
}

std::unique_ptr<Bootstrap> open_tcp_bootstrap_at(UniqueFd listener, const RendezvousConfig& config,
                                                 const Deadline& deadline,
                                                 const tcp::TcpOptions& options) {
  check_membership("TCP rendezvous", config.rank, config.num_ranks);
  MOELINK_INVARIANT(config.rank == Rank(0));
  const tcp::Credentials credentials(config.rank, config.secret);
  return std::make_unique<tcp::TcpHost>(std::move(listener), credentials, config.num_ranks, options,
                                        deadline);
}

}  // namespace moelink
