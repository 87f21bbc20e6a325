// A connection at rank 0 that has not proved yet that it may join.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/tcp/handshake.hpp"
#include "bootstrap/tcp/poll_set.hpp"
#include "bootstrap/tcp/socket.hpp"

namespace moelink::tcp {

class PendingConnection {
 public:
  enum class State {
    kJoining,   // bytes of the join may still come
    kAccepted,  // take_socket() and judgement() are ready
    kRefused,   // told why; stays a moment so that the other side can read it
    kGone,
  };

  // Sends the challenge.
  PendingConnection(AcceptedConnection connection, HostHandshake handshake,
                    std::chrono::milliseconds timeout);

  State state() const { return state_; }
  const std::string& peer() const { return peer_; }
  const Deadline& deadline() const { return deadline_; }
  // Why it was refused, once: for the log.
  std::optional<std::string> take_refusal();

  void watch(PollSet& set);
  // Never waits. `is_taken`: see HostHandshake::judge.
  void advance(const PollSet& set, const std::function<bool(Rank)>& is_taken);
  void refuse(rendezvous::Outcome outcome);

  const HostHandshake::Judgement& judgement() const { return *judgement_; }
  UniqueFd take_socket() { return std::move(socket_); }

 private:
  void receive_join(const std::function<bool(Rank)>& is_taken);
  void discard_input();
  void conclude(HostHandshake::Judgement judgement);

  UniqueFd socket_;
  std::string peer_;
  HostHandshake handshake_;
  Deadline deadline_;
  State state_ = State::kJoining;
  std::optional<std::size_t> poll_idx_;
  rendezvous::JoinBytes join_{};
  std::size_t num_received_ = 0;
  std::optional<HostHandshake::Judgement> judgement_;
  std::optional<std::string> refusal_;
};

}  // namespace moelink::tcp
