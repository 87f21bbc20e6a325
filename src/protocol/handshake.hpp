// Messages by which a rank joins a rendezvous: challenge (host), join (joiner), verdict (host).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace moelink::rendezvous {

// Every message starts with a preamble: magic and version, whose layout no version changes.
// Integers are little endian.
inline constexpr std::array<std::uint8_t, 8> kMagic = {'M', 'o', 'e', 'l', 'i', 'n', 'k', 0x1a};
inline constexpr std::uint32_t kVersion = 1;

inline constexpr std::size_t kNonceBytes = 32;
inline constexpr std::size_t kProofBytes = 32;
using Nonce = std::array<std::uint8_t, kNonceBytes>;
using Proof = std::array<std::uint8_t, kProofBytes>;

// Host to joiner, as soon as the connection stands. The nonce is fresh for each connection.
struct Challenge {
  std::uint32_t version = kVersion;
  Nonce nonce{};
};

// Joiner to host. The proof is a keyed hash over the challenge and the other fields of this
// message.
struct Join {
  std::uint32_t version = kVersion;
  std::uint32_t rank = 0;
  std::uint32_t num_ranks = 0;
  Nonce nonce{};
  Proof proof{};
};

enum class Outcome : std::uint32_t {
  kAccepted = 0,
  kNotMoelink = 1,      // the preamble's magic is wrong
  kOtherVersion = 2,    // detail: the host's version
  kWrongSecret = 3,     // the proof does not match
  kOtherNumRanks = 4,   // detail: the host's number of ranks
  kRankOutOfRange = 5,  // detail: the host's number of ranks
  kRankTaken = 6,
  kTooSlow = 7,  // no complete join in time; the joiner may try again
  kCrowded = 8,  // pushed out by newer connections; the joiner may try again
};
inline constexpr std::uint32_t kLastOutcome = 8;

// Host to joiner. Only the proof of kAccepted is checked: by then the host must know the secret.
struct Verdict {
  std::uint32_t version = kVersion;
  Outcome outcome = Outcome::kAccepted;
  std::uint32_t detail = 0;
  Proof proof{};
};

inline constexpr std::size_t kPreambleBytes = kMagic.size() + sizeof(std::uint32_t);
inline constexpr std::size_t kChallengeBytes = kPreambleBytes + kNonceBytes;
// The part of a join, and of a verdict, that its proof covers.
inline constexpr std::size_t kJoinClaimBytes =
    kPreambleBytes + 2 * sizeof(std::uint32_t) + kNonceBytes;
inline constexpr std::size_t kJoinBytes = kJoinClaimBytes + kProofBytes;
inline constexpr std::size_t kVerdictClaimBytes = kPreambleBytes + 2 * sizeof(std::uint32_t);
inline constexpr std::size_t kVerdictBytes = kVerdictClaimBytes + kProofBytes;
static_assert(kPreambleBytes == 12);
static_assert(kChallengeBytes == 44);
static_assert(kJoinBytes == 84);
static_assert(kVerdictBytes == 52);

using ChallengeBytes = std::array<std::uint8_t, kChallengeBytes>;
using JoinBytes = std::array<std::uint8_t, kJoinBytes>;
using VerdictBytes = std::array<std::uint8_t, kVerdictBytes>;

ChallengeBytes encode(const Challenge& challenge);
JoinBytes encode(const Join& join);
VerdictBytes encode(const Verdict& verdict);

enum class PreambleState { kIncomplete, kGood, kNotMoelink, kOtherVersion };
// Judges the first bytes of any message; a wrong magic shows as soon as one byte of it differs.
PreambleState check_preamble(std::span<const std::uint8_t> received);
// Of a message with at least kPreambleBytes.
std::uint32_t preamble_version(std::span<const std::uint8_t> received);

// The preamble must be good. A verdict with an outcome that this version does not know is nullopt.
Challenge decode_challenge(const ChallengeBytes& bytes);
Join decode_join(const JoinBytes& bytes);
std::optional<Verdict> decode_verdict(const VerdictBytes& bytes);

}  // namespace moelink::rendezvous
