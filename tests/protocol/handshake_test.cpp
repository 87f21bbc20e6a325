// Handshake messages: layout and round trip.
#include "protocol/handshake.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace moelink::rendezvous {
namespace {

Nonce counting_nonce(std::uint8_t first) {
  Nonce nonce;
  std::iota(nonce.begin(), nonce.end(), first);
  return nonce;
}

TEST(Handshake, ChallengeRoundTripsThroughItsBytes) {
  const Challenge decoded = decode_challenge(encode(Challenge{.nonce = counting_nonce(3)}));
  EXPECT_EQ(decoded.version, kVersion);
  EXPECT_EQ(decoded.nonce, counting_nonce(3));
}

TEST(Handshake, JoinRoundTripsThroughItsBytes) {
  const Join join{
      .rank = 70000, .num_ranks = 70001, .nonce = counting_nonce(5), .proof = counting_nonce(90)};
  const Join decoded = decode_join(encode(join));
  EXPECT_EQ(decoded.version, kVersion);
  EXPECT_EQ(decoded.rank, 70000u);
  EXPECT_EQ(decoded.num_ranks, 70001u);
  EXPECT_EQ(decoded.nonce, join.nonce);
  EXPECT_EQ(decoded.proof, join.proof);
}

TEST(Handshake, VerdictRoundTripsThroughItsBytesForEveryOutcome) {
  for (std::uint32_t outcome = 0; outcome <= kLastOutcome; ++outcome) {
    const Verdict verdict{
        .outcome = static_cast<Outcome>(outcome), .detail = 12, .proof = counting_nonce(1)};
    const auto decoded = decode_verdict(encode(verdict));
    ASSERT_TRUE(decoded.has_value());
    EXPECT_EQ(decoded->outcome, verdict.outcome);
    EXPECT_EQ(decoded->detail, 12u);
    EXPECT_EQ(decoded->proof, verdict.proof);
  }
}

TEST(Handshake, VerdictWithAnUnknownOutcomeIsNotDecoded) {
  const Verdict verdict{.outcome = static_cast<Outcome>(kLastOutcome + 1)};
  EXPECT_FALSE(decode_verdict(encode(verdict)).has_value());
}

TEST(Handshake, PreambleIsIncompleteUntilItsLastByte) {
  const ChallengeBytes bytes = encode(Challenge{});
  for (std::size_t size = 0; size < kPreambleBytes; ++size) {
    EXPECT_EQ(check_preamble(std::span(bytes).first(size)), PreambleState::kIncomplete) << size;
  }
  EXPECT_EQ(check_preamble(bytes), PreambleState::kGood);
}

TEST(Handshake, PreambleShowsAWrongMagicAtItsFirstWrongByte) {
  for (std::size_t at = 0; at < kMagic.size(); ++at) {
    ChallengeBytes bytes = encode(Challenge{});
    bytes[at] ^= 1;
    EXPECT_EQ(check_preamble(std::span(bytes).first(at + 1)), PreambleState::kNotMoelink) << at;
    EXPECT_EQ(check_preamble(bytes), PreambleState::kNotMoelink) << at;
  }
}

TEST(Handshake, PreambleTellsAnotherVersion) {
  const auto bytes = encode(Challenge{.version = kVersion + 1});
  EXPECT_EQ(check_preamble(bytes), PreambleState::kOtherVersion);
  EXPECT_EQ(preamble_version(bytes), kVersion + 1);
}

}  // namespace
}  // namespace moelink::rendezvous
