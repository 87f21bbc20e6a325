// Non-blocking TCP on the system's socket calls.
#include "bootstrap/tcp/socket.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>

#include "base/check.hpp"
#include "bootstrap/tcp/poll_set.hpp"

namespace moelink::tcp {

namespace {

// A port may still be held for a moment by a listener of the same job that is about to close.
constexpr std::chrono::milliseconds kBindPatience{1000};
constexpr std::chrono::milliseconds kBindRetryPause{20};

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

struct Resolution {
  AddressList addresses{nullptr, &::freeaddrinfo};
  std::string error;
};

Resolution resolve(const Endpoint& endpoint, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code =
      ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  Resolution resolution;
  if (code == 0) {
    resolution.addresses.reset(found);
  } else {
    resolution.error = code == EAI_SYSTEM ? std::generic_category().message(errno)
                                          : std::string(::gai_strerror(code));
  }
  return resolution;
}

UniqueFd open_socket(const addrinfo& address) {
  return UniqueFd(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

void send_without_delay(const UniqueFd& socket) {
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

std::string describe_address(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  const int code = ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host,
                                 sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
  if (code != 0) return "an unknown address";
  return std::strchr(host, ':') != nullptr ? fmt::format("[{}]:{}", host, port)
                                           : fmt::format("{}:{}", host, port);
}

struct SocketAddress {
  sockaddr_storage address{};
  socklen_t length = sizeof(sockaddr_storage);
};

SocketAddress own_address(const UniqueFd& socket) {
  SocketAddress own;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own.address), &own.length) != 0) {
    fail_errno(errno, "read the own address of a socket");
  }
  return own;
}

// 0 or errno.
int bind_and_listen(const UniqueFd& socket, const addrinfo& address) {
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(socket.get(), address.ai_addr, address.ai_addrlen) != 0) return errno;
  return ::listen(socket.get(), SOMAXCONN) == 0 ? 0 : errno;
}

[[noreturn]] void fail_listening(const Endpoint& endpoint, int error_number) {
  if (error_number == EADDRNOTAVAIL) {
    fail(ErrorCode::kInvalidArgument,
         "rank 0: host '{}' is not an address of this machine, expected the host of rank 0",
         endpoint.host);
  }
  fail_errno(error_number, "rank 0: listen at {}{}", endpoint.describe(),
             error_number == EADDRINUSE ? " (another program, or another rank 0, has this port; "
                                          "choose another one with MOELINK_PORT)"
                                        : "");
}

// A connection to a free local port can meet itself when the system picks that port as its source.
bool is_connected_to_itself(const UniqueFd& socket) {
  const SocketAddress own = own_address(socket);
  SocketAddress other;
  if (::getpeername(socket.get(), reinterpret_cast<sockaddr*>(&other.address), &other.length) !=
      0) {
    return false;
  }
  return own.length == other.length && std::memcmp(&own.address, &other.address, own.length) == 0;
}

// 0 or errno.
int connect_to(const UniqueFd& socket, const addrinfo& address, const Deadline& deadline) {
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS && errno != EINTR) return errno;
  if (!wait_for(socket.get(), POLLOUT, deadline)) return ETIMEDOUT;
  int error_number = 0;
  socklen_t length = sizeof(error_number);
  ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error_number, &length);
  return error_number;
}

bool is_passing_accept_error(int error_number) {
  return error_number == EAGAIN || error_number == EWOULDBLOCK || error_number == EINTR ||
         error_number == ECONNABORTED || error_number == EPROTO || error_number == EPERM ||
         error_number == ENETDOWN || error_number == EHOSTUNREACH || error_number == ENETUNREACH;
}

IoResult io_result(ssize_t moved) {
  if (moved > 0) return {IoStatus::kMoved, static_cast<std::size_t>(moved)};
  if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
    return {IoStatus::kWouldBlock, 0};
  }
  return {IoStatus::kClosed, 0};
}

}  // namespace

std::string Endpoint::describe() const {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

UniqueFd listen_at(const Endpoint& endpoint, const Deadline& deadline) {
  const Resolution resolution = resolve(endpoint, AI_PASSIVE);
  if (!resolution.addresses) {
    fail(ErrorCode::kInvalidArgument, "rank 0: host '{}' cannot be resolved: {}", endpoint.host,
         resolution.error);
  }
  const Deadline patience = Deadline::after(std::min(kBindPatience, deadline.span()));
  while (true) {
    int first_error = 0;
    for (const addrinfo* at = resolution.addresses.get(); at != nullptr; at = at->ai_next) {
      UniqueFd socket = open_socket(*at);
      const int error_number = socket.valid() ? bind_and_listen(socket, *at) : errno;
      if (error_number == 0) return socket;
      if (first_error == 0) first_error = error_number;
    }
    if (first_error != EADDRINUSE || patience.expired()) fail_listening(endpoint, first_error);
    std::this_thread::sleep_for(kBindRetryPause);
  }
}

std::uint16_t listening_port(const UniqueFd& listener) {
  // The port is at the same place for both families.
  const sockaddr_storage address = own_address(listener).address;
  sockaddr_in common{};
  std::memcpy(&common, &address, sizeof(common));
  return ntohs(common.sin_port);
}

std::string listening_address(const UniqueFd& listener) {
  const SocketAddress own = own_address(listener);
  return describe_address(own.address, own.length);
}

ConnectAttempt try_connect(const Endpoint& endpoint, const Deadline& deadline) {
  const Resolution resolution = resolve(endpoint, 0);
  if (!resolution.addresses) {
    return {UniqueFd(), fmt::format("host '{}': {}", endpoint.host, resolution.error)};
  }
  int error_number = 0;
  for (const addrinfo* at = resolution.addresses.get(); at != nullptr; at = at->ai_next) {
    UniqueFd socket = open_socket(*at);
    error_number = socket.valid() ? connect_to(socket, *at, deadline) : errno;
    if (error_number != 0) continue;
    if (is_connected_to_itself(socket)) {
      error_number = ECONNREFUSED;
      continue;
    }
    send_without_delay(socket);
    return {std::move(socket), ""};
  }
  return {UniqueFd(), std::generic_category().message(error_number)};
}

std::optional<AcceptedConnection> accept_one(const UniqueFd& listener) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  UniqueFd socket(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&address), &length,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket.valid()) {
    const int error_number = errno;
    if (is_passing_accept_error(error_number)) return std::nullopt;
    fail_errno(error_number, "rank 0: accept a connection");
  }
  send_without_delay(socket);
  return AcceptedConnection{std::move(socket), describe_address(address, length)};
}

IoResult receive_some(int fd, std::span<std::uint8_t> into) {
  return io_result(::recv(fd, into.data(), into.size(), 0));
}

IoResult send_some(int fd, std::span<const std::uint8_t> bytes) {
  return io_result(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

}  // namespace moelink::tcp
