// Accepts connections and lets those in that know a proof.
#include "symm/newcomers.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "base/log.hpp"
#include "symm/unix_socket.hpp"

namespace moelink {
namespace {

constexpr std::chrono::milliseconds kLongestPoll{1000};

int milliseconds_left(const Deadline& deadline) {
  const auto left = deadline.remaining(kLongestPoll);
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(left).count());
}

bool same_user(int socket) {
  const PeerCredentials peer = credentials_of_peer(socket);
  if (peer.user == ::geteuid()) return true;
  log(LogLevel::kWarning, "symmetric memory: refused a connection of uid {}, expected uid {}",
      peer.user, ::geteuid());
  return false;
}

}  // namespace

void Newcomers::serve_once(const Deadline& deadline, const Judge& may_join,
                           const Welcome& welcome) {
  std::vector<pollfd> entries{{listener_, POLLIN, 0}};
  for (const UniqueFd& socket : waiting_) entries.push_back({socket.get(), POLLIN, 0});
  const int count = ::poll(entries.data(), entries.size(), milliseconds_left(deadline));
  if (count < 0 && errno != EINTR) fail_errno(errno, "cannot wait for connections of ranks");
  if (count <= 0) return;

  std::list<UniqueFd> served;
  auto next = waiting_.begin();
  for (std::size_t i = 1; i < entries.size(); ++i) {
    const auto current = next++;
    if (entries[i].revents != 0) served.splice(served.end(), waiting_, current);
  }
  for (UniqueFd& socket : served) read_hello(std::move(socket), may_join, welcome);
  if (entries.front().revents != 0) accept_all();
}

void Newcomers::accept_all() {
  for (;;) {
    UniqueFd socket(::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return;
      fail_errno(errno, "cannot accept the connection of a rank");
    }
    if (!same_user(socket.get())) continue;
    if (waiting_.size() >= most_waiting_) waiting_.pop_front();
    waiting_.push_back(std::move(socket));
    if (waiting_.size() == most_waiting_) return;  // read what they said before taking more
  }
}

void Newcomers::read_hello(UniqueFd socket, const Judge& may_join, const Welcome& welcome) {
  Hello hello;
  if (receive_message(socket.get(), &hello, sizeof(hello)) != sizeof(hello) ||
      hello.magic != Hello::kMagic || !may_join(hello)) {
    log(LogLevel::kWarning,
        "symmetric memory: refused a connection of process {} that is no rank of this group",
        credentials_of_peer(socket.get()).process);
    return;
  }
  welcome(Rank(hello.rank), std::move(socket));
}

}  // namespace moelink
