// How a rank gets its channel to rank 0: connect, prove the secret, try again while it makes sense.
#pragma once

#include "base/deadline.hpp"
#include "bootstrap/tcp/channel.hpp"
#include "bootstrap/tcp/handshake.hpp"
#include "bootstrap/tcp/socket.hpp"
#include "bootstrap/tcp/tcp_options.hpp"
#include "moelink/types.hpp"

namespace moelink::tcp {

struct Joiner {
  Rank rank;
  int num_ranks = 0;
  Endpoint host;
};

// Throws Error(kPeerLost) when rank 0 refuses, Error(kTimeout) when it is not there.
Channel join_host(const Joiner& joiner, const Credentials& credentials, const TcpOptions& options,
                  const Deadline& deadline);

}  // namespace moelink::tcp
