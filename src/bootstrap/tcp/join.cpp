// Attempts to join until one succeeds, rank 0 refuses, or the deadline passes.
#include "bootstrap/tcp/join.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "base/check.hpp"
#include "bootstrap/tcp/poll_set.hpp"

namespace moelink::tcp {

namespace {

using rendezvous::PreambleState;

constexpr std::chrono::milliseconds kFirstPause{5};
constexpr std::chrono::milliseconds kLongestPause{200};

struct Attempt {
  std::optional<Channel> channel = std::nullopt;
  bool refused = false;  // for good
  std::string reason = {};
};

Attempt try_again(std::string reason) { return {.reason = std::move(reason)}; }
Attempt refused(std::string reason) { return {.refused = true, .reason = std::move(reason)}; }

Deadline earlier(const Deadline& deadline, std::chrono::milliseconds span) {
  return Deadline::after(
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline.remaining(span)));
}

// Empty when all bytes are here, otherwise why not.
std::string receive_all(const UniqueFd& socket, std::span<std::uint8_t> into,
                        const Deadline& deadline) {
  while (!into.empty()) {
    const IoResult received = receive_some(socket.get(), into);
    if (received.status == IoStatus::kClosed) return "it closed the connection";
    into = into.subspan(received.num_bytes);
    if (received.status == IoStatus::kWouldBlock && !wait_for(socket.get(), POLLIN, deadline)) {
      return "it accepts connections but does not answer as rank 0 of a Moelink group";
    }
  }
  return "";
}

// Challenge, join, verdict on one connection.
class Conversation {
 public:
  Conversation(const UniqueFd& socket, const Joiner& joiner, const Credentials& credentials)
      : socket_(socket), handshake_(credentials, joiner.rank, joiner.num_ranks) {}

  // The session's keys are in keys() if the attempt has no reason against it. `patience` ends
  // before the join is sent; afterwards rank 0 may already count on this connection, so it is kept.
  Attempt run(const Deadline& patience, const Deadline& deadline);
  const SessionKeys& keys() const { return *keys_; }

 private:
  Attempt answer_challenge(const Deadline& deadline);
  Attempt hear_verdict(const Deadline& deadline);
  void send_join(const rendezvous::ChallengeBytes& challenge);

  const UniqueFd& socket_;
  JoinerHandshake handshake_;
  std::optional<SessionKeys> keys_;
};

Attempt Conversation::run(const Deadline& patience, const Deadline& deadline) {
  Attempt attempt = answer_challenge(patience);
  return attempt.reason.empty() ? hear_verdict(deadline) : std::move(attempt);
}

Attempt Conversation::answer_challenge(const Deadline& deadline) {
  rendezvous::ChallengeBytes challenge{};
  const auto preamble = std::span(challenge).first<rendezvous::kPreambleBytes>();
  if (auto reason = receive_all(socket_, preamble, deadline); !reason.empty()) {
    return try_again(std::move(reason));
  }
  const PreambleState state = rendezvous::check_preamble(preamble);
  if (state == PreambleState::kNotMoelink) {
    return refused("the program that listens there is not rank 0 of a Moelink group");
  }
  if (state == PreambleState::kOtherVersion) {
    send_join(challenge);  // so that rank 0 learns of it as well
    return refused(
        fmt::format("rank 0 speaks version {} of the rendezvous protocol, this rank "
                    "version {}",
                    rendezvous::preamble_version(preamble), rendezvous::kVersion));
  }
  const auto rest = std::span(challenge).subspan<rendezvous::kPreambleBytes>();
  if (auto reason = receive_all(socket_, rest, deadline); !reason.empty()) {
    return try_again(std::move(reason));
  }
  send_join(challenge);
  return {};
}

// A connection that cannot take these few bytes is closed; reading the verdict will tell.
void Conversation::send_join(const rendezvous::ChallengeBytes& challenge) {
  send_some(socket_.get(), handshake_.answer(challenge));
}

Attempt Conversation::hear_verdict(const Deadline& deadline) {
  rendezvous::VerdictBytes verdict{};
  if (auto reason = receive_all(socket_, verdict, deadline); !reason.empty()) {
    return try_again(std::move(reason));
  }
  if (rendezvous::check_preamble(verdict) != PreambleState::kGood) {
    return refused("the program that listens there is not rank 0 of a Moelink group");
  }
  JoinerHandshake::Conclusion conclusion = handshake_.conclude(verdict);
  if (!conclusion.keys) {
    return conclusion.try_again ? try_again(std::move(conclusion.reason))
                                : refused(std::move(conclusion.reason));
  }
  keys_ = conclusion.keys;
  return {};
}

Attempt attempt_to_join(const Joiner& joiner, const Credentials& credentials,
                        const TcpOptions& options, const Deadline& deadline) {
  const Deadline patience = earlier(deadline, options.handshake_timeout);
  ConnectAttempt connection = try_connect(joiner.host, patience);
  if (!connection.socket.valid()) return try_again(std::move(connection.reason));
  Conversation conversation(connection.socket, joiner, credentials);
  Attempt attempt = conversation.run(patience, deadline);
  if (attempt.reason.empty()) {
    const SessionKeys& keys = conversation.keys();
    attempt.channel.emplace(std::move(connection.socket),
                            ChannelKeys{keys.joiner_to_host, keys.host_to_joiner},
                            options.max_blob_bytes + rendezvous::kPartOverheadBytes);
  }
  return attempt;
}

}  // namespace

Channel join_host(const Joiner& joiner, const Credentials& credentials, const TcpOptions& options,
                  const Deadline& deadline) {
  std::chrono::milliseconds pause = kFirstPause;
  while (true) {
    Attempt attempt = attempt_to_join(joiner, credentials, options, deadline);
    if (attempt.channel) return std::move(*attempt.channel);
    if (attempt.refused) {
      fail(ErrorCode::kPeerLost, "rank {} was refused by rank 0 at {}: {}", joiner.rank.value(),
           joiner.host.describe(), attempt.reason);
    }
    if (deadline.expired()) {
      fail(ErrorCode::kTimeout,
           "rank {}: rendezvous: could not reach rank 0 at {} within {} ms (last attempt: {}); has "
           "rank 0 started, and do host and port (MOELINK_HOST, MOELINK_PORT) agree on all ranks?",
           joiner.rank.value(), joiner.host.describe(), deadline.span().count(), attempt.reason);
    }
    std::this_thread::sleep_for(deadline.remaining(pause));
    pause = std::min(2 * pause, kLongestPause);
  }
}

}  // namespace moelink::tcp
