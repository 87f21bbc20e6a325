// TCP sockets without blocking: listen, connect, receive, send.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"

namespace moelink::tcp {

struct Endpoint {
  std::string host;
  std::uint16_t port = 0;

  std::string describe() const;  // "127.0.0.1:1234", "[::1]:1234"
};

// Listens at this one address only. Port 0: any free port. Throws Error(kInvalidArgument) if the
// host does not resolve or is not an address of this machine, Error(kSystem) if the port stays
// taken.
UniqueFd listen_at(const Endpoint& endpoint, const Deadline& deadline);
std::uint16_t listening_port(const UniqueFd& listener);
std::string listening_address(const UniqueFd& listener);  // "127.0.0.1:1234"

struct ConnectAttempt {
  UniqueFd socket;     // valid if the connection stands
  std::string reason;  // why not
};
ConnectAttempt try_connect(const Endpoint& endpoint, const Deadline& deadline);

struct AcceptedConnection {
  UniqueFd socket;
  std::string peer;  // "10.0.0.7:51234"
};
// nullopt when no connection waits. Throws Error(kSystem) when this process is out of descriptors.
std::optional<AcceptedConnection> accept_one(const UniqueFd& listener);

enum class IoStatus { kMoved, kWouldBlock, kClosed };
struct IoResult {
  IoStatus status = IoStatus::kWouldBlock;
  std::size_t num_bytes = 0;
};
// A connection that failed for any reason counts as closed.
IoResult receive_some(int fd, std::span<std::uint8_t> into);
IoResult send_some(int fd, std::span<const std::uint8_t> bytes);

}  // namespace moelink::tcp
