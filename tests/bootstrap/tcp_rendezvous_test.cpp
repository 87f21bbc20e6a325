// The TCP rendezvous with visitors that must be turned away while the job goes on.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bootstrap/tcp_world.hpp"

namespace moelink::test {
namespace {

using rendezvous::Outcome;

// For tests in which a deadline must not be what helps.
tcp::TcpOptions patient_options() {
  tcp::TcpOptions options;
  options.handshake_timeout = kLongWait;
  return options;
}

TEST(TcpRendezvous, RefusesAWrongSecretOnBothSidesAndGoesOn) {
  testing::internal::CaptureStderr();
  Rendezvous job(3);
  auto config = job.config(2);
  config.secret = "another secret";
  expect_error(run_rank([&] { job.join(config); }), ErrorCode::kPeerLost,
               {"rank 2 was refused by rank 0 at 127.0.0.1:" + std::to_string(job.port()),
                "wrong secret (set MOELINK_SECRET to the job's secret)"});
  job.expect_job_completes();
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string expected = "wrong secret (it claims to be rank 2)";
  EXPECT_NE(log.find(expected), std::string::npos) << log;
  EXPECT_EQ(log.find(expected), log.rfind(expected)) << log;
}

TEST(TcpRendezvous, RefusesAnEmptySecretBeforeConnecting) {
  for (const int rank : {0, 1}) {
    auto config = tcp_config(rank, 2, 1);  // nobody could listen at port 1
    config.secret.clear();
    expect_error(run_rank([&] { open_tcp_bootstrap(config, Deadline::after(kLongWait)); }),
                 ErrorCode::kInvalidArgument,
                 {"rank " + std::to_string(rank), "MOELINK_SECRET", "openssl rand"});
  }
}

TEST(TcpRendezvous, RefusesAJoinWithoutProof) {
  Rendezvous job(2);
  RawConnection stranger(job.port());
  stranger.receive_challenge();
  stranger.send(rendezvous::encode(rendezvous::Join{.rank = 1, .num_ranks = 2}));
  EXPECT_EQ(stranger.receive_outcome(), Outcome::kWrongSecret);
  EXPECT_TRUE(stranger.is_closed_by_peer());
  job.expect_job_completes();
}

TEST(TcpRendezvous, RefusesGarbageAtItsFirstBytes) {
  testing::internal::CaptureStderr();
  Rendezvous job(2, patient_options());
  RawConnection browser(job.port());
  browser.receive_challenge();
  browser.send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(browser.receive_outcome(), Outcome::kNotMoelink);
  EXPECT_TRUE(browser.is_closed_by_peer());
  job.expect_job_completes();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("does not speak Moelink's rendezvous protocol"), std::string::npos) << log;
}

TEST(TcpRendezvous, RefusesAnotherProtocolVersion) {
  Rendezvous job(2, patient_options());
  RawConnection future(job.port());
  future.receive_challenge();
  auto join = rendezvous::encode(rendezvous::Join{.version = rendezvous::kVersion + 1});
  future.send(std::span(join).first<rendezvous::kPreambleBytes>());
  EXPECT_EQ(future.receive_outcome(), Outcome::kOtherVersion);
  job.expect_job_completes();
}

TEST(TcpRendezvous, RefusesAJoinRecordedFromAnotherRendezvous) {
  Rendezvous recorded_job(2);
  Rendezvous job(2);
  const tcp::Credentials credentials(Rank(1), kSecret);
  tcp::JoinerHandshake joiner(credentials, Rank(1), 2);
  RawConnection recording(recorded_job.port());
  const auto join = joiner.answer(recording.receive_challenge());
  RawConnection replay(job.port());
  replay.receive_challenge();
  replay.send(join);
  EXPECT_EQ(replay.receive_outcome(), Outcome::kWrongSecret);
  job.expect_job_completes();
  recorded_job.expect_job_completes();
}

TEST(TcpRendezvous, RefusesATakenRankAndGoesOn) {
  Rendezvous job(3);
  auto accepted = job.join_later(1);
  auto refused = job.join_later(1);
  // Rank 2 has not come yet, so only a refusal can end one of the two.
  const auto is_ready = [](auto& joining) {
    return joining.wait_for(std::chrono::milliseconds(5)) == std::future_status::ready;
  };
  while (!is_ready(refused)) std::swap(accepted, refused);
  expect_error(run_rank([&] { refused.get(); }), ErrorCode::kPeerLost,
               {"rank 1 was refused by rank 0", "rank 1 has joined already"});
  std::vector<std::future<std::unique_ptr<Bootstrap>>> joining;
  joining.push_back(std::move(accepted));
  job.expect_job_completes(std::move(joining));
}

TEST(TcpRendezvous, RefusesAnotherNumberOfRanksAndGoesOn) {
  Rendezvous job(3);
  auto config = job.config(1);
  config.num_ranks = 2;
  expect_error(run_rank([&] { job.join(config); }), ErrorCode::kPeerLost,
               {"rank 1 was refused by rank 0", "num_ranks is 2 here, but 3 at rank 0"});
  job.expect_job_completes();
}

TEST(TcpRendezvous, SilentAndSlowConnectionsDelayNobody) {
  Rendezvous job(3, patient_options());
  std::vector<std::unique_ptr<RawConnection>> idle;
  for (int i = 0; i < 40; ++i) {
    idle.push_back(std::make_unique<RawConnection>(job.port()));
    if (i % 2 == 0) idle.back()->send("M");
  }
  job.expect_job_completes();
}

TEST(TcpRendezvous, ClosesAConnectionThatTakesTooLong) {
  tcp::TcpOptions options;
  options.handshake_timeout = std::chrono::milliseconds(50);
  Rendezvous job(2, options);
  RawConnection slow(job.port());
  slow.receive_challenge();
  slow.send("Moel");
  EXPECT_EQ(slow.receive_outcome(), Outcome::kTooSlow);
  EXPECT_TRUE(slow.is_closed_by_peer());
  job.expect_job_completes();
}

TEST(TcpRendezvous, PushesTheOldestConnectionOutWhenThereAreTooMany) {
  auto options = patient_options();
  options.max_surplus_connections = 4;
  Rendezvous job(2, options);
  RawConnection oldest(job.port());
  oldest.receive_challenge();
  std::vector<std::unique_ptr<RawConnection>> idle;
  for (int i = 0; i < 50; ++i) idle.push_back(std::make_unique<RawConnection>(job.port()));
  EXPECT_EQ(oldest.receive_outcome(), Outcome::kCrowded);
  job.expect_job_completes();
}

TEST(TcpRendezvous, ListensOnlyAtTheGivenAddress) {
  Rendezvous job(2);
  const auto elsewhere = tcp::try_connect({"127.0.0.2", job.port()}, Deadline::after(kLongWait));
  EXPECT_FALSE(elsewhere.socket.valid());
  job.expect_job_completes();
}

TEST(TcpRendezvous, TimeoutNamesTheRanksThatNeverCame) {
  Rendezvous job(4, {}, kShortWait);
  auto first = job.join_later(1);
  const auto host = run_rank([&] { job.take_host(); });
  const auto member = run_rank([&] { first.get(); });
  expect_error(host, ErrorCode::kTimeout,
               {"rendezvous", "ranks 2, 3", "listens at 127.0.0.1:" + std::to_string(job.port())});
  expect_error(member, ErrorCode::kTimeout, {"rendezvous", "ranks 2, 3"});
}

TEST(TcpRendezvous, TimeoutNamesRankZeroWhenNobodyListens) {
  const auto port = find_free_port();
  expect_error(
      run_rank([&] { open_tcp_bootstrap(tcp_config(1, 2, port), Deadline::after(kShortWait)); }),
      ErrorCode::kTimeout,
      {"rank 1", "could not reach rank 0 at 127.0.0.1:" + std::to_string(port), "MOELINK_HOST"});
}

TEST(TcpRendezvous, NamesARankThatLeavesBeforeAllHaveJoined) {
  Rendezvous job(3);
  const tcp::Credentials credentials(Rank(2), kSecret);
  tcp::JoinerHandshake joiner(credentials, Rank(2), 3);
  RawConnection leaving(job.port());
  leaving.send(joiner.answer(leaving.receive_challenge()));
  ASSERT_EQ(leaving.receive_outcome(), Outcome::kAccepted);
  leaving.close();
  expect_error(run_rank([&] { job.take_host(); }), ErrorCode::kPeerLost,
               {"rendezvous", "lost rank 2"});
}

TEST(TcpRendezvous, RefusesConfigsThatCannotWork) {
  auto config = tcp_config(1, 2, 0);
  const auto open = [&] { open_tcp_bootstrap(config, Deadline::after(kLongWait)); };
  expect_error(run_rank(open), ErrorCode::kInvalidArgument, {"rank 1", "port 0"});
  config = tcp_config(0, 2, 4444);
  config.host = "192.0.2.1";  // reserved for documentation
  expect_error(run_rank(open), ErrorCode::kInvalidArgument, {"192.0.2.1", "not an address"});
  config = tcp_config(2, 2, 4444);
  expect_error(run_rank(open), ErrorCode::kInvalidArgument, {"rank is 2", "expected 0 to 1"});
}

TEST(TcpRendezvous, SaysSoWhenThePortIsTaken) {
  const UniqueFd other = listen_on_loopback();
  const auto config = tcp_config(0, 2, tcp::listening_port(other));
  expect_error(run_rank([&] { open_tcp_bootstrap(config, Deadline::after(kLongWait)); }),
               ErrorCode::kSystem, {"rank 0", std::to_string(config.port), "MOELINK_PORT"});
}

}  // namespace
}  // namespace moelink::test
