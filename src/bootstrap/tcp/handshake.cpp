// Challenge and response with keyed BLAKE2b; every proof and key covers both nonces and both
// claims.
#include "bootstrap/tcp/handshake.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>

#include "base/check.hpp"

namespace moelink::tcp {

namespace {

using rendezvous::Outcome;

constexpr std::string_view kMasterLabel = "moelink rendezvous 1";
constexpr std::string_view kJoinLabel = "join proof";
constexpr std::string_view kVerdictLabel = "verdict proof";
constexpr std::string_view kJoinerToHostLabel = "joiner to host";
constexpr std::string_view kHostToJoinerLabel = "host to joiner";

// BLAKE2b of parts whose boundaries are fixed by their sizes.
class Hash {
 public:
  explicit Hash(std::span<const std::uint8_t> key = {}) {
    crypto_generichash_init(&state_, key.data(), key.size(), kKeyBytes);
  }
  ~Hash() { sodium_memzero(&state_, sizeof(state_)); }
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;

  Hash& add(std::span<const std::uint8_t> bytes) {
    crypto_generichash_update(&state_, bytes.data(), bytes.size());
    return *this;
  }
  // With its length in front.
  Hash& add_label(std::string_view label) {
    const std::uint8_t length = static_cast<std::uint8_t>(label.size());
    add({&length, 1});
    return add({reinterpret_cast<const std::uint8_t*>(label.data()), label.size()});
  }
  Key finish() {
    Key key;
    crypto_generichash_final(&state_, key.bytes.data(), key.bytes.size());
    return key;
  }

 private:
  crypto_generichash_state state_;
};

Key hash_transcript(const rendezvous::ChallengeBytes& challenge,
                    std::span<const std::uint8_t> join_claim) {
  return Hash().add(challenge).add(join_claim).finish();
}

Key prove_verdict(const Credentials& credentials, const Key& transcript,
                  std::span<const std::uint8_t> verdict_claim) {
  std::array<std::uint8_t, kKeyBytes + rendezvous::kVerdictClaimBytes> covered;
  auto end = std::copy(transcript.bytes.begin(), transcript.bytes.end(), covered.begin());
  std::copy(verdict_claim.begin(), verdict_claim.end(), end);
  return credentials.derive(kVerdictLabel, covered);
}

SessionKeys derive_session(const Credentials& credentials, const Key& transcript) {
  return {credentials.derive(kJoinerToHostLabel, transcript.bytes),
          credentials.derive(kHostToJoinerLabel, transcript.bytes)};
}

bool matches(const rendezvous::Proof& proof, const Key& expected) {
  return sodium_memcmp(proof.data(), expected.bytes.data(), proof.size()) == 0;
}

std::span<const std::uint8_t> claim_of(const rendezvous::JoinBytes& join) {
  return std::span(join).first<rendezvous::kJoinClaimBytes>();
}

std::span<const std::uint8_t> claim_of(const rendezvous::VerdictBytes& verdict) {
  return std::span(verdict).first<rendezvous::kVerdictClaimBytes>();
}

// In words for the side that is refused.
std::string explain(const rendezvous::Verdict& verdict, Rank rank, int num_ranks) {
  switch (verdict.outcome) {
    case Outcome::kAccepted:
      return "accepted";
    case Outcome::kNotMoelink:
      return "rank 0 did not see a Moelink handshake";
    case Outcome::kOtherVersion:
      return fmt::format(
          "rank 0 speaks version {} of the rendezvous protocol, this rank version {}",
          verdict.detail, rendezvous::kVersion);
    case Outcome::kWrongSecret:
      return "wrong secret (set MOELINK_SECRET to the job's secret)";
    case Outcome::kOtherNumRanks:
      return fmt::format("num_ranks is {} here, but {} at rank 0", num_ranks, verdict.detail);
    case Outcome::kRankOutOfRange:
      return fmt::format("rank {} is outside 1 to {}", rank.value(),
                         static_cast<std::int64_t>(verdict.detail) - 1);
    case Outcome::kRankTaken:
      return fmt::format("rank {} has joined already", rank.value());
    case Outcome::kTooSlow:
      return "the handshake took too long";
    case Outcome::kCrowded:
      return "too many connections at once";
  }
  return "unknown reason";
}

// In words for rank 0's log.
std::string explain_to_host(Outcome outcome, const rendezvous::Join& join, int num_ranks) {
  switch (outcome) {
    case Outcome::kAccepted:
      return "accepted";
    case Outcome::kNotMoelink:
      return "it does not speak Moelink's rendezvous protocol";
    case Outcome::kOtherVersion:
      return fmt::format(
          "it speaks another version of the rendezvous protocol, expected version {}",
          rendezvous::kVersion);
    case Outcome::kWrongSecret:
      return fmt::format("wrong secret (it claims to be rank {})", join.rank);
    case Outcome::kOtherNumRanks:
      return fmt::format("rank {} has num_ranks {}, expected {}", join.rank, join.num_ranks,
                         num_ranks);
    case Outcome::kRankOutOfRange:
      return fmt::format("rank {} is outside 1 to {}", join.rank, num_ranks - 1);
    case Outcome::kRankTaken:
      return fmt::format("rank {} has joined already", join.rank);
    case Outcome::kTooSlow:
      return "it did not complete the handshake in time";
    case Outcome::kCrowded:
      return "too many connections that have not completed the handshake";
  }
  return "unknown reason";
}

rendezvous::Nonce fresh_nonce() {
  rendezvous::Nonce nonce;
  randombytes_buf(nonce.data(), nonce.size());
  return nonce;
}

}  // namespace

Key::~Key() { sodium_memzero(bytes.data(), bytes.size()); }

Credentials::Credentials(Rank rank, std::string_view secret) {
  if (secret.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "rank {}: the job's secret is empty; set MOELINK_SECRET (or RendezvousConfig::secret) to "
         "the same random text on all ranks, such as the output of `openssl rand -hex 32`",
         rank.value());
  }
  if (sodium_init() < 0) fail(ErrorCode::kSystem, "libsodium cannot be initialised");
  master_ = Hash()
                .add_label(kMasterLabel)
                .add({reinterpret_cast<const std::uint8_t*>(secret.data()), secret.size()})
                .finish();
}

Key Credentials::derive(std::string_view label, std::span<const std::uint8_t> bytes) const {
  return Hash(master_.bytes).add_label(label).add(bytes).finish();
}

HostHandshake::HostHandshake(const Credentials& credentials, int num_ranks)
    : credentials_(credentials),
      num_ranks_(num_ranks),
      challenge_(rendezvous::encode(rendezvous::Challenge{.nonce = fresh_nonce()})) {}

HostHandshake::Judgement HostHandshake::judge(const rendezvous::JoinBytes& bytes,
                                              const std::function<bool(Rank)>& is_taken) const {
  const rendezvous::Join join = rendezvous::decode_join(bytes);
  const Key transcript = hash_transcript(challenge_, claim_of(bytes));
  const auto num_ranks = static_cast<std::uint32_t>(num_ranks_);
  const Rank rank(static_cast<std::int32_t>(join.rank));
  Outcome outcome = Outcome::kAccepted;
  if (!matches(join.proof, credentials_.derive(kJoinLabel, transcript.bytes))) {
    outcome = Outcome::kWrongSecret;
  } else if (join.num_ranks != num_ranks) {
    outcome = Outcome::kOtherNumRanks;
  } else if (join.rank == 0 || join.rank >= num_ranks) {
    outcome = Outcome::kRankOutOfRange;
  } else if (is_taken(rank)) {
    outcome = Outcome::kRankTaken;
  }
  rendezvous::Verdict verdict = refusal(outcome);
  Judgement judgement{outcome, {}, rank, explain_to_host(outcome, join, num_ranks_), {}};
  if (outcome == Outcome::kAccepted) {
    verdict.proof =
        prove_verdict(credentials_, transcript, claim_of(rendezvous::encode(verdict))).bytes;
    judgement.keys = derive_session(credentials_, transcript);
  }
  judgement.verdict = rendezvous::encode(verdict);
  return judgement;
}

HostHandshake::Judgement HostHandshake::refuse(Outcome outcome) const {
  return {outcome,
          rendezvous::encode(refusal(outcome)),
          Rank(-1),
          explain_to_host(outcome, rendezvous::Join{}, num_ranks_),
          {}};
}

rendezvous::Verdict HostHandshake::refusal(Outcome outcome) const {
  const bool is_version = outcome == Outcome::kOtherVersion;
  return {.outcome = outcome,
          .detail = is_version ? rendezvous::kVersion : static_cast<std::uint32_t>(num_ranks_)};
}

JoinerHandshake::JoinerHandshake(const Credentials& credentials, Rank rank, int num_ranks)
    : credentials_(credentials), rank_(rank), num_ranks_(num_ranks) {}

rendezvous::JoinBytes JoinerHandshake::answer(const rendezvous::ChallengeBytes& challenge) {
  rendezvous::Join join{.rank = static_cast<std::uint32_t>(rank_.value()),
                        .num_ranks = static_cast<std::uint32_t>(num_ranks_),
                        .nonce = fresh_nonce()};
  transcript_ = hash_transcript(challenge, claim_of(rendezvous::encode(join)));
  join.proof = credentials_.derive(kJoinLabel, transcript_.bytes).bytes;
  return rendezvous::encode(join);
}

JoinerHandshake::Conclusion JoinerHandshake::conclude(const rendezvous::VerdictBytes& bytes) const {
  const auto verdict = rendezvous::decode_verdict(bytes);
  if (!verdict) return {.reason = "rank 0 answered with a verdict that this version does not know"};
  if (verdict->outcome != Outcome::kAccepted) {
    const bool passing =
        verdict->outcome == Outcome::kTooSlow || verdict->outcome == Outcome::kCrowded;
    return {.try_again = passing, .reason = explain(*verdict, rank_, num_ranks_)};
  }
  if (!matches(verdict->proof, prove_verdict(credentials_, transcript_, claim_of(bytes)))) {
    return {.reason = "the program that listens there does not know the job's secret"};
  }
  return {.keys = derive_session(credentials_, transcript_)};
}

}  // namespace moelink::tcp
