// Both sides of the rendezvous handshake: who knows the job's secret may join. No input or output.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "moelink/types.hpp"
#include "protocol/handshake.hpp"

namespace moelink::tcp {

inline constexpr std::size_t kKeyBytes = 32;

// A key that is wiped when it goes.
struct Key {
  std::array<std::uint8_t, kKeyBytes> bytes{};

  Key() = default;
  Key(const Key&) = default;
  Key& operator=(const Key&) = default;
  ~Key();
};

// One key per direction, fresh for each connection.
struct SessionKeys {
  Key joiner_to_host;
  Key host_to_joiner;
};

// What the secret is turned into. Throws Error(kInvalidArgument) when the secret is empty. Whoever
// records a handshake can test guesses at home, so a secret has to be random, not a word.
class Credentials {
 public:
  Credentials(Rank rank, std::string_view secret);

  // Keyed hash of the label and the bytes.
  Key derive(std::string_view label, std::span<const std::uint8_t> bytes) const;

 private:
  Key master_;
};

// Rank 0's side of one connection.
class HostHandshake {
 public:
  HostHandshake(const Credentials& credentials, int num_ranks);

  const rendezvous::ChallengeBytes& challenge() const { return challenge_; }

  struct Judgement {
    rendezvous::Outcome outcome;
    rendezvous::VerdictBytes verdict;  // to be sent
    Rank rank;                         // who asked, as far as it is believable
    std::string reason;                // for the log when refused
    SessionKeys keys;                  // when accepted
  };
  // `is_taken` is asked only about ranks in range, and only once the secret has been proved.
  Judgement judge(const rendezvous::JoinBytes& bytes,
                  const std::function<bool(Rank)>& is_taken) const;
  // Refuses without a complete join: for garbage, other versions, slow or surplus connections.
  Judgement refuse(rendezvous::Outcome outcome) const;

 private:
  rendezvous::Verdict refusal(rendezvous::Outcome outcome) const;

  const Credentials& credentials_;
  int num_ranks_;
  rendezvous::ChallengeBytes challenge_;
};

// The side of a rank that wants to join.
class JoinerHandshake {
 public:
  JoinerHandshake(const Credentials& credentials, Rank rank, int num_ranks);

  rendezvous::JoinBytes answer(const rendezvous::ChallengeBytes& challenge);

  struct Conclusion {
    std::optional<SessionKeys> keys = std::nullopt;  // when accepted
    bool try_again = false;                          // when refused for a reason that may pass
    std::string reason = {};                         // when refused
  };
  Conclusion conclude(const rendezvous::VerdictBytes& bytes) const;

 private:
  const Credentials& credentials_;
  Rank rank_;
  int num_ranks_;
  Key transcript_;
};

}  // namespace moelink::tcp
