// Connects Unix sockets and passes messages and descriptors over them.
#include "symm/unix_socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include "base/check.hpp"

namespace moelink {
namespace {

constexpr std::chrono::milliseconds kRetryPause{1};
constexpr std::chrono::milliseconds kLongestPoll{1000};

struct AbstractAddress {
  sockaddr_un address{};
  socklen_t size = 0;
};

AbstractAddress address_of(const RandomToken& name) {
  AbstractAddress result;
  result.address.sun_family = AF_UNIX;
  // A leading zero byte makes the name abstract.
  const std::string text = std::string(1, '\0') + "moelink-" + name.hex();
  std::memcpy(result.address.sun_path, text.data(), text.size());
  result.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size());
  return result;
}

UniqueFd make_socket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) fail_errno(errno, "cannot create a Unix socket");
  return socket;
}

void pause_or_time_out(const std::string& what, const Deadline& deadline) {
  if (deadline.expired()) {
    fail(ErrorCode::kTimeout, "{} for {} ms", what, deadline.span().count());
  }
  std::this_thread::sleep_for(deadline.remaining(kRetryPause));
}

bool is_hang_up(int error_number) { return error_number == EPIPE || error_number == ECONNRESET; }

// Room for one descriptor and not, because of padding, for two.
struct DescriptorBuffer {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int))] = {};
};
constexpr std::size_t kControlBytes = CMSG_LEN(sizeof(int));

struct DescriptorMessage {
  explicit DescriptorMessage(DescriptorBuffer& control) {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes;
    header.msg_controllen = kControlBytes;
  }
  DescriptorMessage(const DescriptorMessage&) = delete;
  DescriptorMessage& operator=(const DescriptorMessage&) = delete;

  char content = 'd';
  iovec part{&content, sizeof(content)};
  msghdr header{};
};

UniqueFd descriptor_in(msghdr& header) {
  const cmsghdr* const control = CMSG_FIRSTHDR(&header);
  if (control == nullptr || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS ||
      control->cmsg_len < kControlBytes) {
    return UniqueFd();
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(control), sizeof(fd));
  return UniqueFd(fd);
}

}  // namespace

UniqueFd listen_at(const RandomToken& name, int backlog) {
  UniqueFd socket = make_socket();
  const AbstractAddress at = address_of(name);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at.address), at.size) != 0) {
    fail_errno(errno, "cannot bind a Unix socket");
  }
  if (::listen(socket.get(), backlog) != 0) fail_errno(errno, "cannot listen at a Unix socket");
  return socket;
}

UniqueFd connect_to(const RandomToken& name, Rank listener, const Deadline& deadline) {
  UniqueFd socket = make_socket();
  const AbstractAddress at = address_of(name);
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&at.address), at.size) != 0) {
    if (errno == ECONNREFUSED) {
      fail(ErrorCode::kPeerLost, "rank {} no longer listens at its Unix socket", listener.value());
    }
    if (errno != EAGAIN && errno != EINTR) fail_errno(errno, "cannot connect a Unix socket");
    pause_or_time_out(fmt::format("the queue of rank {}'s Unix socket was full", listener.value()),
                      deadline);
  }
  return socket;
}

Readiness wait_readable(int fd, const Deadline& deadline) {
  pollfd entry{fd, POLLIN, 0};
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline.remaining(kLongestPoll));
    const int count = ::poll(&entry, 1, static_cast<int>(left.count()));
    if (count > 0) return Readiness::kReady;
    if (count < 0 && errno != EINTR) fail_errno(errno, "cannot wait for a Unix socket");
    if (deadline.expired()) return Readiness::kNotYet;
  }
}

PeerCredentials credentials_of_peer(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    fail_errno(errno, "cannot read the credentials of a Unix socket's peer");
  }
  return PeerCredentials{credentials.pid, credentials.uid};
}

bool send_message(int socket, const void* data, std::size_t bytes) {
  const ssize_t sent = ::send(socket, data, bytes, MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(bytes)) return true;
  if (is_hang_up(errno)) return false;
  fail_errno(errno, "cannot send {} bytes over a Unix socket", bytes);
}

std::size_t receive_message(int socket, void* data, std::size_t bytes) {
  const ssize_t received = ::recv(socket, data, bytes, 0);
  if (received >= 0) return static_cast<std::size_t>(received);
  if (is_hang_up(errno)) return 0;
  fail_errno(errno, "cannot receive {} bytes over a Unix socket", bytes);
}

bool send_descriptor(int socket, int fd, const Deadline& deadline) {
  DescriptorBuffer control;
  DescriptorMessage message(control);
  cmsghdr* const head = CMSG_FIRSTHDR(&message.header);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = kControlBytes;
  std::memcpy(CMSG_DATA(head), &fd, sizeof(fd));
  while (::sendmsg(socket, &message.header, MSG_NOSIGNAL) < 0) {
    if (is_hang_up(errno)) return false;
    if (errno != ETOOMANYREFS && errno != EAGAIN && errno != EINTR) {
      fail_errno(errno, "cannot pass a descriptor over a Unix socket");
    }
    pause_or_time_out("too many descriptors were in flight (RLIMIT_NOFILE)", deadline);
  }
  return true;
}

std::optional<UniqueFd> receive_descriptor(int socket) {
  DescriptorBuffer control;
  DescriptorMessage message(control);
  const ssize_t received = ::recvmsg(socket, &message.header, MSG_CMSG_CLOEXEC);
  if (received < 0 && !is_hang_up(errno)) {
    fail_errno(errno, "cannot receive a descriptor over a Unix socket");
  }
  if (received <= 0) return std::nullopt;
  return descriptor_in(message.header);
}

}  // namespace moelink
