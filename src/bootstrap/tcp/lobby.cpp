// The loop in which rank 0 admits the other ranks.
#include "bootstrap/tcp/lobby.hpp"

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "bootstrap/tcp/poll_set.hpp"
#include "bootstrap/tcp/socket.hpp"

namespace moelink::tcp {

namespace {

using State = PendingConnection::State;

constexpr std::chrono::nanoseconds kMaxSleep = std::chrono::seconds(1);
// So that somebody who knocks all day cannot fill the log.
constexpr std::uint64_t kMaxLoggedRefusals = 20;
// So that a flood of connections cannot keep rank 0 from its other work.
constexpr int kMaxAcceptsPerRound = 64;

}  // namespace

Lobby::Lobby(UniqueFd listener, const Credentials& credentials, int num_ranks,
             const TcpOptions& options)
    : listener_(std::move(listener)),
      credentials_(credentials),
      options_(options),
      num_ranks_(num_ranks),
      max_pending_(static_cast<std::size_t>(num_ranks + options.max_surplus_connections)) {}

void Lobby::wait_for_all(Peers& peers, const Deadline& deadline) {
  bool ready_sent = false;
  while (true) {
    const std::vector<Rank> absent = peers.absent();
    if (const auto failure = peers.find_failure(kRendezvousName, 0, absent)) {
      give_up(peers, *failure);
    }
    if (absent.empty() && !ready_sent) {
      peers.send_to_all(rendezvous::FrameKind::kReady, std::make_shared<const std::string>());
      ready_sent = true;
    }
    const std::vector<Rank> unfinished = ready_sent ? peers.with_output() : absent;
    if (unfinished.empty()) break;
    if (deadline.expired()) {
      give_up(peers, missing_ranks_failure(kRendezvousName, unfinished, deadline.span()));
    }
    run_round(peers, deadline);
  }
  if (num_refused_ > kMaxLoggedRefusals) {
    log(LogLevel::kWarning, "rank 0: refused {} connections in all while waiting for the ranks",
        num_refused_);
  }
}

void Lobby::give_up(Peers& peers, Failure failure) {
  // A host name that means another interface elsewhere is a common cause.
  if (failure.code == ErrorCode::kTimeout) {
    failure.text += "; rank 0 listens at " + listening_address(listener_);
  }
  peers.announce(failure);
  throw_failure(Rank(0), failure);
}

void Lobby::run_round(Peers& peers, const Deadline& deadline) {
  PollSet set;
  const std::size_t listener_idx = set.add(listener_.get(), POLLIN);
  for (PendingConnection& connection : pending_) connection.watch(set);
  peers.watch(set);
  set.wait(longest_sleep(deadline));
  peers.exchange(set);
  advance_pending(set, peers);
  if (set.ready(listener_idx)) accept_connections();
}

std::chrono::nanoseconds Lobby::longest_sleep(const Deadline& deadline) const {
  std::chrono::nanoseconds sleep = deadline.remaining(kMaxSleep);
  for (const PendingConnection& connection : pending_) {
    sleep = connection.deadline().remaining(sleep);
  }
  return sleep;
}

void Lobby::accept_connections() {
  for (int i = 0; i < kMaxAcceptsPerRound; ++i) {
    make_room();
    auto connection = accept_one(listener_);
    if (!connection) return;
    pending_.emplace_back(std::move(*connection), HostHandshake(credentials_, num_ranks_),
                          options_.handshake_timeout);
  }
}

void Lobby::make_room() {
  if (pending_.size() < max_pending_) return;
  PendingConnection& oldest = pending_.front();
  if (oldest.state() == State::kJoining) {
    oldest.refuse(rendezvous::Outcome::kCrowded);
    log_refusal(oldest.peer(), oldest.judgement().reason);
  }
  pending_.pop_front();
}

void Lobby::advance_pending(const PollSet& set, Peers& peers) {
  const auto is_taken = [&](Rank rank) { return peers.has_joined(rank); };
  const std::size_t max_payload_bytes = options_.max_blob_bytes + rendezvous::kPartOverheadBytes;
  for (auto at = pending_.begin(); at != pending_.end();) {
    at->advance(set, is_taken);
    if (const auto reason = at->take_refusal()) log_refusal(at->peer(), *reason);
    if (at->state() == State::kAccepted) {
      const SessionKeys& keys = at->judgement().keys;
      peers.admit(at->judgement().rank,
                  Channel(at->take_socket(), {keys.host_to_joiner, keys.joiner_to_host},
                          max_payload_bytes));
      at = pending_.erase(at);
    } else {
      at = at->state() == State::kGone ? pending_.erase(at) : std::next(at);
    }
  }
}

void Lobby::log_refusal(const std::string& peer, const std::string& reason) {
  ++num_refused_;
  if (num_refused_ > kMaxLoggedRefusals) return;
  log(LogLevel::kWarning, "rank 0: refused a connection from {}: {}{}", peer, reason,
      num_refused_ == kMaxLoggedRefusals ? " (further refusals are only counted)" : "");
}

}  // namespace moelink::tcp
