// Limits of the TCP rendezvous.
#pragma once

#include <chrono>
#include <cstddef>

namespace moelink::tcp {

struct TcpOptions {
  // Longest blob of one rank in one collective.
  std::size_t max_blob_bytes = std::size_t{64} << 20;
  // How long rank 0 lets one connection take to prove that it knows the secret, and how long a
  // joiner waits for rank 0's first message before it tries again.
  std::chrono::milliseconds handshake_timeout{5000};
  // Connections beyond the group's own that may be in the handshake at once; the oldest goes first.
  int max_surplus_connections = 64;
};

}  // namespace moelink::tcp
