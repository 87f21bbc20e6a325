// Connects all ranks pairwise and watches the connections.
#include "symm/peer_links.hpp"

#include <fmt/ranges.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.hpp"
#include "symm/newcomers.hpp"
#include "symm/unix_socket.hpp"

namespace moelink {
namespace {

constexpr int kSpareConnections = 16;  // of strangers, beside those of the ranks

UniqueFd open_process(pid_t process) {
  if (process <= 0 || process == ::getpid()) return UniqueFd();
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
}

}  // namespace

std::string PeerTicket::encode() const {
  return std::string(socket_name.view()) + std::string(proof.view());
}

PeerTicket PeerTicket::decode(std::string_view text) {
  const std::size_t middle = std::min(text.size(), RandomToken::kBytes);
  return PeerTicket{RandomToken::decode(text.substr(0, middle)),
                    RandomToken::decode(text.substr(middle))};
}

PeerListener::PeerListener(int num_ranks)
    : ticket_{RandomToken::make(), RandomToken::make()},
      socket_(listen_at(ticket_.socket_name, num_ranks + kSpareConnections)) {}

PeerLinks::PeerLinks(Rank rank, const PeerListener& listener,
                     const std::vector<PeerTicket>& tickets, const Deadline& deadline)
    : rank_(rank) {
  for (std::size_t peer = 0; peer < tickets.size(); ++peer) {
    links_.push_back(std::make_unique<Link>());
  }
  connect_to_lower(listener.ticket(), tickets, deadline);
  accept_higher(listener, tickets, deadline);
}

// Connecting succeeds without the listener's help until its queue is full, so ranks may all connect
// first and accept afterwards; rank 0, which connects to nobody, keeps a full queue moving.
void PeerLinks::connect_to_lower(const PeerTicket& own, const std::vector<PeerTicket>& tickets,
                                 const Deadline& deadline) {
  const Hello hello{Hello::kMagic, rank_.value(), own.proof};
  for (Rank peer(0); peer < rank_; peer = peer.next()) {
    UniqueFd socket = connect_to(tickets[peer.index()].socket_name, peer, deadline);
    if (credentials_of_peer(socket.get()).user != ::geteuid() ||
        !send_message(socket.get(), &hello, sizeof(hello))) {
      fail(ErrorCode::kPeerLost, "rank {} refused the connection of rank {}", peer.value(),
           rank_.value());
    }
    link(peer.index()).socket = std::move(socket);
  }
}

void PeerLinks::accept_higher(const PeerListener& listener, const std::vector<PeerTicket>& tickets,
                              const Deadline& deadline) {
  std::size_t num_missing = tickets.size() - rank_.index() - 1;
  const auto may_join = [&](const Hello& hello) {
    const Rank peer(hello.rank);
    return peer > rank_ && peer.index() < tickets.size() && !link(peer.index()).socket.valid() &&
           hello.proof == tickets[peer.index()].proof;
  };
  const auto welcome = [&](Rank peer, UniqueFd socket) {
    link(peer.index()).socket = std::move(socket);
    --num_missing;
  };
  Newcomers newcomers(listener.socket(), tickets.size() + kSpareConnections);
  while (num_missing > 0 && !deadline.expired()) {
    newcomers.serve_once(deadline, may_join, welcome);
  }
  if (num_missing == 0) return;
  std::vector<std::size_t> missing;
  for (std::size_t peer = rank_.index() + 1; peer < tickets.size(); ++peer) {
    if (!link(peer).socket.valid()) missing.push_back(peer);
  }
  fail(ErrorCode::kTimeout, "ranks {} did not connect to rank {} within {} ms",
       fmt::join(missing, ", "), rank_.value(), deadline.span().count());
}

// In round d each rank gives to the d-th rank after it and takes from the d-th before it, so that
// few descriptors are in flight at a time: the system counts them against a user's limit.
std::vector<UniqueFd> PeerLinks::exchange_descriptors(int own, const Deadline& deadline) {
  const std::size_t num_ranks = links_.size();
  std::vector<UniqueFd> received(num_ranks);
  for (std::size_t distance = 1; distance < num_ranks; ++distance) {
    const std::size_t to = (rank_.index() + distance) % num_ranks;
    const std::size_t from = (rank_.index() + num_ranks - distance) % num_ranks;
    if (!send_descriptor(link(to).socket.get(), own, deadline)) {
      fail(ErrorCode::kPeerLost,
           "rank {} closed its connection before it got the memory of rank {}", to, rank_.value());
    }
    received[from] = receive_from(from, deadline);
  }
  return received;
}

UniqueFd PeerLinks::receive_from(std::size_t peer, const Deadline& deadline) {
  const int socket = link(peer).socket.get();
  if (wait_readable(socket, deadline) == Readiness::kNotYet) {
    fail(ErrorCode::kTimeout, "rank {} did not send its memory to rank {} within {} ms", peer,
         rank_.value(), deadline.span().count());
  }
  std::optional<UniqueFd> received = receive_descriptor(socket);
  if (!received) {
    fail(ErrorCode::kPeerLost, "rank {} closed its connection before it sent its memory to rank {}",
         peer, rank_.value());
  }
  if (!received->valid()) {
    fail(ErrorCode::kSystem,
         "no descriptor came with the memory of rank {}: too many files are open (RLIMIT_NOFILE, "
         "ulimit -n)",
         peer);
  }
  return std::move(*received);
}

void PeerLinks::watch_processes() {
  for (const std::unique_ptr<Link>& peer : links_) {
    if (!peer->socket.valid()) continue;
    peer->process = open_process(credentials_of_peer(peer->socket.get()).process);
  }
}

bool PeerLinks::alive(Rank peer) const {
  if (peer == rank_) return !departed_.load(std::memory_order_relaxed);
  Link& watched = link(peer.index());
  if (watched.dead.load(std::memory_order_relaxed)) return false;
  // Negative descriptors are ignored by poll.
  std::array<pollfd, 2> entries{
      {{watched.socket.get(), POLLRDHUP, 0}, {watched.process.get(), POLLIN, 0}}};
  if (::poll(entries.data(), entries.size(), 0) <= 0) return true;
  watched.dead.store(true, std::memory_order_relaxed);
  return false;
}

void PeerLinks::announce_departure() {
  if (departed_.exchange(true)) return;
  for (const std::unique_ptr<Link>& peer : links_) {
    if (peer->socket.valid()) ::shutdown(peer->socket.get(), SHUT_WR);
  }
}

}  // namespace moelink
