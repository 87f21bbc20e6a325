// Drives the host's side of one handshake, byte by byte if need be.
#include "bootstrap/tcp/pending_connection.hpp"

#include <sys/socket.h>

#include <array>
#include <span>
#include <utility>

namespace moelink::tcp {

namespace {

using rendezvous::Outcome;
using rendezvous::PreambleState;

constexpr std::chrono::milliseconds kRefusalLinger{1000};

}  // namespace

PendingConnection::PendingConnection(AcceptedConnection connection, HostHandshake handshake,
                                     std::chrono::milliseconds timeout)
    : socket_(std::move(connection.socket)),
      peer_(std::move(connection.peer)),
      handshake_(std::move(handshake)),
      deadline_(Deadline::after(timeout)) {
  // An empty send buffer takes so few bytes whole, unless the connection is already gone.
  const auto& challenge = handshake_.challenge();
  if (send_some(socket_.get(), challenge).num_bytes != challenge.size()) state_ = State::kGone;
}

std::optional<std::string> PendingConnection::take_refusal() {
  return std::exchange(refusal_, std::nullopt);
}

void PendingConnection::watch(PollSet& set) { poll_idx_ = set.add(socket_.get(), POLLIN); }

void PendingConnection::advance(const PollSet& set, const std::function<bool(Rank)>& is_taken) {
  if (poll_idx_ && set.ready(*poll_idx_)) {
    if (state_ == State::kJoining) receive_join(is_taken);
    if (state_ == State::kRefused) discard_input();
  }
  if (!deadline_.expired()) return;
  if (state_ == State::kJoining) {
    refuse(Outcome::kTooSlow);
  } else if (state_ == State::kRefused) {
    state_ = State::kGone;
  }
}

void PendingConnection::receive_join(const std::function<bool(Rank)>& is_taken) {
  const IoResult received = receive_some(socket_.get(), std::span(join_).subspan(num_received_));
  if (received.status == IoStatus::kClosed) state_ = State::kGone;
  if (received.status != IoStatus::kMoved) return;
  num_received_ += received.num_bytes;
  const PreambleState preamble = rendezvous::check_preamble(std::span(join_).first(num_received_));
  if (preamble == PreambleState::kNotMoelink) {
    refuse(Outcome::kNotMoelink);
  } else if (preamble == PreambleState::kOtherVersion) {
    refuse(Outcome::kOtherVersion);
  } else if (num_received_ == join_.size()) {
    conclude(handshake_.judge(join_, is_taken));
  }
}

void PendingConnection::refuse(Outcome outcome) { conclude(handshake_.refuse(outcome)); }

void PendingConnection::conclude(HostHandshake::Judgement judgement) {
  const bool sent =
      send_some(socket_.get(), judgement.verdict).num_bytes == judgement.verdict.size();
  if (judgement.outcome != Outcome::kAccepted) {
    refusal_ = judgement.reason;
    ::shutdown(socket_.get(), SHUT_WR);
    deadline_ = Deadline::after(kRefusalLinger);
    state_ = sent ? State::kRefused : State::kGone;
  } else {
    state_ = sent ? State::kAccepted : State::kGone;
  }
  judgement_ = std::move(judgement);
}

// Closing with unread input would reset the connection and could destroy the verdict on its way.
void PendingConnection::discard_input() {
  std::array<std::uint8_t, 4096> scrap;
  const IoResult received = receive_some(socket_.get(), scrap);
  if (received.status == IoStatus::kClosed) state_ = State::kGone;
}

}  // namespace moelink::tcp
