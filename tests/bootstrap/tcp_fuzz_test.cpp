// Random and hostile bytes at rank 0, before and after the handshake.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bootstrap/tcp/channel.hpp"
#include "bootstrap/tcp_world.hpp"

namespace moelink::test {
namespace {

using rendezvous::Outcome;

// Garbage, or a join with the right preamble and garbage behind it, or a valid one with one byte
// off.
std::vector<std::uint8_t> hostile_bytes(std::mt19937& random, const tcp::Credentials& credentials,
                                        const rendezvous::ChallengeBytes& challenge) {
  std::uniform_int_distribution<int> any_byte(0, 255);
  std::vector<std::uint8_t> bytes(std::uniform_int_distribution<std::size_t>(1, 400)(random));
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(any_byte(random));
  const auto kind = std::uniform_int_distribution<int>(0, 2)(random);
  if (kind == 0) return bytes;
  tcp::JoinerHandshake joiner(credentials, Rank(1), 3);
  const auto join = joiner.answer(challenge);
  if (kind == 1) {
    std::copy_n(join.begin(), std::min(bytes.size(), rendezvous::kPreambleBytes), bytes.begin());
    return bytes;
  }
  bytes.assign(join.begin(), join.end());
  const auto at = std::uniform_int_distribution<std::size_t>(0, bytes.size() - 1)(random);
  bytes[at] ^= static_cast<std::uint8_t>(std::uniform_int_distribution<int>(1, 255)(random));
  return bytes;
}

TEST(TcpFuzz, TwoHundredHostileConnectionsDoNotStopTheJob) {
  testing::internal::CaptureStderr();
  tcp::TcpOptions options;
  options.handshake_timeout = kLongWait;
  Rendezvous job(3, options);
  const tcp::Credentials credentials(Rank(1), kSecret);
  std::mt19937 random(20240607);
  std::vector<std::unique_ptr<RawConnection>> kept_open;
  for (int i = 0; i < 200; ++i) {
    auto connection = std::make_unique<RawConnection>(job.port());
    const auto challenge = connection->receive_challenge();
    connection->send(hostile_bytes(random, credentials, challenge));
    if (i % 3 == 0) kept_open.push_back(std::move(connection));
  }
  job.expect_job_completes();
  for (auto& connection : kept_open) EXPECT_NE(connection->receive_outcome(), Outcome::kAccepted);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("further refusals are only counted"), std::string::npos) << log;
  EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 30) << log;
}

// A rank that knows the secret and misbehaves afterwards: the group fails, and says whose fault it
// is.
class TcpHostileMember : public testing::Test {
 protected:
  // The job's rank 1 sends `bytes` after its handshake, rank 2 is well-behaved.
  void expect_blamed(const std::string& bytes, const std::string& reason) {
    const tcp::Credentials credentials(Rank(1), kSecret);
    tcp::JoinerHandshake joiner(credentials, Rank(1), 3);
    RawConnection hostile(job_.port());
    hostile.send(joiner.answer(hostile.receive_challenge()));
    ASSERT_EQ(hostile.receive_outcome(), Outcome::kAccepted);
    const auto well_behaved = job_.join(job_.config(2));  // returns when the rendezvous is over
    const auto member = [&] { gather(*well_behaved, "blob"); };
    const auto host = [&] { gather(*job_.take_host(), "blob"); };
    auto hosting = std::async(std::launch::async, [&] { return run_rank(host); });
    hostile.send(bytes);
    expect_error(run_rank(member), ErrorCode::kPeerLost, {"lost rank 1", reason});
    expect_error(hosting.get(), ErrorCode::kPeerLost, {"lost rank 1", reason});
  }

  Rendezvous job_{3};
  const std::string stream_header_ = std::string(24, 'h');
};

TEST_F(TcpHostileMember, AnOversizedFrameIsRefusedAtItsLength) {
  expect_blamed(stream_header_ + std::string("\xff\xff\xff\x7f", 4),
                "announced a frame of 2147483647");
}

TEST_F(TcpHostileMember, AFrameThatIsNotAuthenticIsRefused) {
  expect_blamed(stream_header_ + std::string("\x20\0\0\0", 4) + std::string(32, 'x'),
                "not authentic");
}

TEST(TcpLimits, AnOversizedBlobIsRefusedBeforeItIsSent) {
  tcp::TcpOptions options;
  options.max_blob_bytes = 1000;
  auto bootstraps = Rendezvous(3, options).complete();
  const auto results = run_ranks(bootstraps, [](std::unique_ptr<Bootstrap>& bootstrap) {
    EXPECT_EQ(gather(*bootstrap, std::string(1000, 'b'))[2].size(), 1000u);
    gather(*bootstrap, std::string(1001, 'b'));
  });
  for (const RankResult& result : results) {
    expect_error(result, ErrorCode::kInvalidArgument, {kWhat, "1001 bytes", "at most 1000"});
  }
}

}  // namespace
}  // namespace moelink::test
