// The two sides of the handshake against each other, and against forgeries, without a network.
#include "bootstrap/tcp/handshake.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "conformance/rank_results.hpp"

namespace moelink::test {
namespace {

using rendezvous::Outcome;
using tcp::Credentials;
using tcp::HostHandshake;
using tcp::JoinerHandshake;

constexpr int kNumRanks = 4;
const auto kNoneTaken = [](Rank) { return false; };

template <std::size_t N>
bool contains(const std::array<std::uint8_t, N>& bytes, const std::string& text) {
  return std::search(bytes.begin(), bytes.end(), text.begin(), text.end(),
                     [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); }) !=
         bytes.end();
}

class TcpHandshake : public testing::Test {
 protected:
  Outcome judge(const rendezvous::JoinBytes& join) const {
    return host_.judge(join, kNoneTaken).outcome;
  }

  Credentials right_{Rank(0), "right secret"};
  Credentials wrong_{Rank(0), "wrong secret"};
  HostHandshake host_{right_, kNumRanks};
  JoinerHandshake joiner_{right_, Rank(2), kNumRanks};
};

TEST_F(TcpHandshake, AcceptsTheRightSecretAndGivesBothSidesTheSameKeys) {
  const auto judgement = host_.judge(joiner_.answer(host_.challenge()), kNoneTaken);
  EXPECT_EQ(judgement.outcome, Outcome::kAccepted);
  EXPECT_EQ(judgement.rank, Rank(2));
  const auto conclusion = joiner_.conclude(judgement.verdict);
  ASSERT_TRUE(conclusion.keys.has_value()) << conclusion.reason;
  EXPECT_EQ(conclusion.keys->joiner_to_host.bytes, judgement.keys.joiner_to_host.bytes);
  EXPECT_EQ(conclusion.keys->host_to_joiner.bytes, judgement.keys.host_to_joiner.bytes);
  EXPECT_NE(judgement.keys.joiner_to_host.bytes, judgement.keys.host_to_joiner.bytes);
}

TEST_F(TcpHandshake, GivesEachConnectionItsOwnKeys) {
  const HostHandshake second_host(right_, kNumRanks);
  JoinerHandshake second_joiner(right_, Rank(2), kNumRanks);
  const auto first = host_.judge(joiner_.answer(host_.challenge()), kNoneTaken);
  const auto second = second_host.judge(second_joiner.answer(second_host.challenge()), kNoneTaken);
  EXPECT_NE(host_.challenge(), second_host.challenge());
  EXPECT_NE(first.keys.joiner_to_host.bytes, second.keys.joiner_to_host.bytes);
}

TEST_F(TcpHandshake, RefusesAnotherSecret) {
  JoinerHandshake stranger(wrong_, Rank(2), kNumRanks);
  const auto judgement = host_.judge(stranger.answer(host_.challenge()), kNoneTaken);
  EXPECT_EQ(judgement.outcome, Outcome::kWrongSecret);
  const auto conclusion = stranger.conclude(judgement.verdict);
  EXPECT_FALSE(conclusion.keys.has_value());
  EXPECT_FALSE(conclusion.try_again);
  EXPECT_NE(conclusion.reason.find("MOELINK_SECRET"), std::string::npos) << conclusion.reason;
}

TEST_F(TcpHandshake, RefusesAJoinWithAnyByteChanged) {
  const auto join = joiner_.answer(host_.challenge());
  for (std::size_t at = rendezvous::kMagic.size(); at < join.size(); ++at) {
    auto forged = join;
    forged[at] ^= 0x10;
    EXPECT_EQ(judge(forged), Outcome::kWrongSecret) << "byte " << at;
  }
  EXPECT_EQ(judge(join), Outcome::kAccepted);
}

TEST_F(TcpHandshake, RefusesAJoinRecordedFromAnotherConnection) {
  const HostHandshake recorded_host(right_, kNumRanks);
  const auto recorded = joiner_.answer(recorded_host.challenge());
  EXPECT_EQ(recorded_host.judge(recorded, kNoneTaken).outcome, Outcome::kAccepted);
  EXPECT_EQ(judge(recorded), Outcome::kWrongSecret);
}

TEST_F(TcpHandshake, RefusesAHostThatDoesNotKnowTheSecret) {
  const HostHandshake impostor(wrong_, kNumRanks);
  joiner_.answer(impostor.challenge());
  const auto conclusion =
      joiner_.conclude(rendezvous::encode(rendezvous::Verdict{.detail = kNumRanks}));
  EXPECT_FALSE(conclusion.keys.has_value());
  EXPECT_FALSE(conclusion.try_again);
  EXPECT_NE(conclusion.reason.find("does not know"), std::string::npos) << conclusion.reason;
}

TEST_F(TcpHandshake, RefusesAVerdictReflectedFromTheJoin) {
  const auto join = rendezvous::decode_join(joiner_.answer(host_.challenge()));
  const auto conclusion = joiner_.conclude(
      rendezvous::encode(rendezvous::Verdict{.detail = kNumRanks, .proof = join.proof}));
  EXPECT_FALSE(conclusion.keys.has_value());
}

TEST_F(TcpHandshake, RefusesAVerdictWithAnyByteOfItsProofOrClaimChanged) {
  const auto verdict = host_.judge(joiner_.answer(host_.challenge()), kNoneTaken).verdict;
  for (std::size_t at = rendezvous::kMagic.size(); at < verdict.size(); ++at) {
    auto forged = verdict;
    forged[at] ^= 0x10;
    EXPECT_FALSE(joiner_.conclude(forged).keys.has_value()) << "byte " << at;
  }
}

TEST_F(TcpHandshake, RefusesAnotherNumberOfRanksAndRanksOutOfRange) {
  JoinerHandshake other_world(right_, Rank(2), kNumRanks + 1);
  const auto judgement = host_.judge(other_world.answer(host_.challenge()), kNoneTaken);
  EXPECT_EQ(judgement.outcome, Outcome::kOtherNumRanks);
  const auto reason = other_world.conclude(judgement.verdict).reason;
  EXPECT_NE(reason.find("num_ranks is 5 here, but 4 at rank 0"), std::string::npos) << reason;
  for (const int rank : {0, kNumRanks, -1}) {
    JoinerHandshake outside(right_, Rank(rank), kNumRanks);
    EXPECT_EQ(judge(outside.answer(host_.challenge())), Outcome::kRankOutOfRange) << rank;
  }
}

TEST_F(TcpHandshake, AsksWhetherTheRankIsTakenOnlyAfterTheProof) {
  JoinerHandshake stranger(wrong_, Rank(2), kNumRanks);
  const auto all_taken = [](Rank) { return true; };
  EXPECT_EQ(host_.judge(stranger.answer(host_.challenge()), all_taken).outcome,
            Outcome::kWrongSecret);
  EXPECT_EQ(host_.judge(joiner_.answer(host_.challenge()), all_taken).outcome, Outcome::kRankTaken);
}

TEST_F(TcpHandshake, NeverSendsTheSecret) {
  const auto join = joiner_.answer(host_.challenge());
  const auto verdict = host_.judge(join, kNoneTaken).verdict;
  EXPECT_FALSE(contains(host_.challenge(), "right"));
  EXPECT_FALSE(contains(join, "right"));
  EXPECT_FALSE(contains(verdict, "right"));
}

TEST(TcpCredentials, RefuseAnEmptySecretAndSayHowToSetOne) {
  expect_error(run_rank([] { Credentials(Rank(3), ""); }), ErrorCode::kInvalidArgument,
               {"rank 3", "MOELINK_SECRET", "empty"});
}

}  // namespace
}  // namespace moelink::test
