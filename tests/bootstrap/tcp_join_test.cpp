// A joining rank that meets something else than its own rank 0.
#include "bootstrap/tcp/join.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <string>
#include <utility>

#include "bootstrap/tcp_world.hpp"

namespace moelink::test {
namespace {

using rendezvous::Challenge;
using rendezvous::Verdict;

// A listener that treats its only visitor as `host` says.
RankResult join_at(const std::function<void(RawConnection&)>& host,
                   std::chrono::milliseconds wait = kLongWait) {
  UniqueFd listener = listen_on_loopback();
  const auto port = tcp::listening_port(listener);
  auto hosting = std::async(std::launch::async, [&] {
    if (!tcp::wait_for(listener.get(), POLLIN, Deadline::after(kLongWait))) return;
    RawConnection visitor(std::move(tcp::accept_one(listener)->socket));
    host(visitor);
  });
  const RankResult result =
      run_rank([&] { open_tcp_bootstrap(tcp_config(1, 2, port), Deadline::after(wait)); });
  hosting.get();
  return result;
}

void receive_join(RawConnection& visitor) {
  rendezvous::JoinBytes join{};
  EXPECT_TRUE(visitor.receive(join));
}

TEST(TcpJoin, GivesUpAtAProgramThatIsNotMoelink) {
  expect_error(join_at([](RawConnection& visitor) { visitor.send("SSH-2.0-OpenSSH_9.2p1\r\n"); }),
               ErrorCode::kPeerLost, {"rank 1 was refused", "not rank 0 of a Moelink group"});
}

TEST(TcpJoin, GivesUpAtAnotherVersionAndLetsTheHostKnow) {
  const auto result = join_at([](RawConnection& visitor) {
    visitor.send(rendezvous::encode(Challenge{.version = rendezvous::kVersion + 6}));
    receive_join(visitor);
  });
  expect_error(result, ErrorCode::kPeerLost, {"version 7", "this rank version 1"});
}

TEST(TcpJoin, RefusesAHostThatAcceptsWithoutKnowingTheSecret) {
  const auto result = join_at([](RawConnection& visitor) {
    visitor.send(rendezvous::encode(Challenge{}));
    receive_join(visitor);
    visitor.send(rendezvous::encode(Verdict{.detail = 2}));
  });
  expect_error(result, ErrorCode::kPeerLost, {"rank 1", "does not know the job's secret"});
}

TEST(TcpJoin, RefusesAHostThatSendsTheChallengeOfAnotherConnection) {
  const tcp::Credentials credentials(Rank(0), kSecret);
  const tcp::HostHandshake real_host(credentials, 2);
  tcp::JoinerHandshake real_joiner(credentials, Rank(1), 2);
  const auto recorded =
      real_host.judge(real_joiner.answer(real_host.challenge()), [](Rank) { return false; });
  const auto result = join_at([&](RawConnection& visitor) {
    visitor.send(real_host.challenge());
    receive_join(visitor);
    visitor.send(recorded.verdict);
  });
  expect_error(result, ErrorCode::kPeerLost, {"does not know the job's secret"});
}

TEST(TcpJoin, TriesAgainUntilItsDeadlineWhenTheHostStaysSilent) {
  const auto result =
      join_at([](RawConnection& visitor) { EXPECT_TRUE(visitor.is_closed_by_peer()); }, kShortWait);
  expect_error(result, ErrorCode::kTimeout, {"rank 1", "does not answer as rank 0"});
}

TEST(TcpJoin, TriesAgainAfterItWasPushedOut) {
  UniqueFd listener = listen_on_loopback();
  const auto port = tcp::listening_port(listener);
  auto joining = std::async(std::launch::async, [&] {
    return open_tcp_bootstrap(tcp_config(1, 2, port), Deadline::after(kLongWait));
  });
  ASSERT_TRUE(tcp::wait_for(listener.get(), POLLIN, Deadline::after(kLongWait)));
  RawConnection first(std::move(tcp::accept_one(listener)->socket));
  first.send(rendezvous::encode(Challenge{}));
  receive_join(first);
  first.send(rendezvous::encode(Verdict{.outcome = rendezvous::Outcome::kCrowded}));
  const auto host = open_tcp_bootstrap_at(std::move(listener), tcp_config(0, 2, port),
                                          Deadline::after(kLongWait));
  EXPECT_EQ(joining.get()->rank(), Rank(1));
}

TEST(TcpJoin, WaitsForAHostThatStartsLater) {
  const auto port = find_free_port();
  auto joining = std::async(std::launch::async, [&] {
    return open_tcp_bootstrap(tcp_config(1, 2, port), Deadline::after(kLongWait));
  });
  // Not needed for success; makes it likely that the first attempts fail.
  EXPECT_EQ(joining.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  const auto host = open_tcp_bootstrap(tcp_config(0, 2, port), Deadline::after(kLongWait));
  EXPECT_EQ(joining.get()->rank(), Rank(1));
}

}  // namespace
}  // namespace moelink::test
