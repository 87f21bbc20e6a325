// A bootstrap over TCP: rank 0 listens, the others connect and prove that they know the job's
// secret.
#pragma once

#include <memory>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/bootstrap.hpp"
#include "bootstrap/tcp/tcp_options.hpp"
#include "moelink/group.hpp"

namespace moelink {

// Collective. A group of one rank needs neither host, port nor secret. Throws
// Error(kInvalidArgument) for an unusable config, Error(kPeerLost) when refused, Error(kTimeout)
// naming the missing ranks.
std::unique_ptr<Bootstrap> open_tcp_bootstrap(const RendezvousConfig& config,
                                              const Deadline& deadline,
                                              const tcp::TcpOptions& options = {});

// For rank 0, on a socket that listens already; config.host and config.port are not used.
std::unique_ptr<Bootstrap> open_tcp_bootstrap_at(UniqueFd listener, const RendezvousConfig& config,
                                                 const Deadline& deadline,
                                                 const tcp::TcpOptions& options = {});

}  // namespace moelink
