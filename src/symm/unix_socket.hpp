// Unix sockets with abstract names, which leave nothing in the file system.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "moelink/types.hpp"
#include "symm/random_token.hpp"

namespace moelink {

// All sockets here keep message boundaries, do not block, and are closed by exec.

UniqueFd listen_at(const RandomToken& name, int backlog);

// Waits while the listener's queue is full. Throws Error(kPeerLost) if nobody listens,
// Error(kTimeout) if the queue stays full, both naming `listener`.
UniqueFd connect_to(const RandomToken& name, Rank listener, const Deadline& deadline);

enum class Readiness { kReady, kNotYet };

// Waits until `fd` can be read or its peer has closed it, at most until the deadline.
Readiness wait_readable(int fd, const Deadline& deadline);

struct PeerCredentials {
  pid_t process = 0;  // 0 if this process cannot see it
  uid_t user = 0;
};
PeerCredentials credentials_of_peer(int socket);

// False if the peer has closed its end.
bool send_message(int socket, const void* data, std::size_t bytes);
// The message's size (more is cut off), 0 if the peer has closed its end. Call it when readable.
std::size_t receive_message(int socket, void* data, std::size_t bytes);

// Passes a descriptor on. Waits while the system has too many descriptors in flight; throws
// Error(kTimeout) if that lasts. False if the peer has closed its end.
bool send_descriptor(int socket, int fd, const Deadline& deadline);
// Nothing if the peer has closed its end; an invalid owner if the message had no descriptor or
// there was no number left for it. Call it when readable.
std::optional<UniqueFd> receive_descriptor(int socket);

}  // namespace moelink
