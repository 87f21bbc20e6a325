// Group: the public face of the bootstraps.
#include "moelink/group.hpp"

#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bootstrap/tcp_world.hpp"
#include "conformance/rank_results.hpp"

namespace moelink::test {
namespace {

std::vector<std::string> echo_all(const std::string& blob) { return {"zero", blob}; }

TEST(Group, OfThreadsExchangesBlobsBetweenThreads) {
  const std::vector<Group> groups = Group::of_threads(3);
  std::vector<std::thread> threads;
  for (const Group& group : groups) {
    threads.emplace_back([group] {
      EXPECT_EQ(group.num_ranks(), 3);
      const auto blobs = group.all_gather(std::to_string(group.rank().value()));
      EXPECT_EQ(blobs, (std::vector<std::string>{"0", "1", "2"}));
      group.barrier();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Group, FromCallbackUsesTheCallback) {
  const Group group = Group::from_callback(Rank(1), 2, echo_all, {.num_nodes = 1});
  EXPECT_EQ(group.rank(), Rank(1));
  EXPECT_EQ(group.all_gather("one"), (std::vector<std::string>{"zero", "one"}));
}

TEST(Group, ConnectMeetsAtThePort) {
  const auto port = find_free_port();
  auto other = std::async(std::launch::async,
                          [&] { return Group::connect(tcp_config(1, 2, port)).all_gather("one"); });
  const Group group = Group::connect(tcp_config(0, 2, port));
  EXPECT_EQ(group.all_gather("zero"), (std::vector<std::string>{"zero", "one"}));
  EXPECT_EQ(other.get(), (std::vector<std::string>{"zero", "one"}));
}

TEST(Group, OfOneRankNeedsNeitherPortNorSecret) {
  const Group group = Group::connect(RendezvousConfig{});
  EXPECT_EQ(group.all_gather("only"), std::vector<std::string>{"only"});
}

TEST(Group, ConnectRefusesAnEmptySecretAtOnce) {
  auto config = tcp_config(1, 2, 1);
  config.secret.clear();
  expect_error(run_rank([&] { Group::connect(config); }), ErrorCode::kInvalidArgument,
               {"MOELINK_SECRET"});
}

TEST(Group, SplitsItsRanksIntoNodes) {
  const auto groups = Group::of_threads(6, {.num_nodes = 3});
  EXPECT_EQ(groups[5].topology(), (Topology{.num_ranks = 6, .num_nodes = 3}));
  EXPECT_EQ(groups[5].topology().node_of(Rank(5)), Node(2));
  EXPECT_EQ(Group::of_threads(6)[0].topology().num_nodes, 1);
}

TEST(Group, RefusesNodesThatDoNotDivideItsRanks) {
  for (const int num_nodes : {4, 7, -1}) {
    expect_error(run_rank([&] { Group::of_threads(6, {.num_nodes = num_nodes}); }),
                 ErrorCode::kInvalidArgument,
                 {"num_nodes is " + std::to_string(num_nodes), "num_ranks, which is 6"});
  }
  const auto config = tcp_config(1, 2, 1);  // would wait if the option were checked later
  expect_error(run_rank([&] { Group::connect(config, {.num_nodes = 3}); }),
               ErrorCode::kInvalidArgument, {"num_nodes is 3"});
}

TEST(Group, GivesUpAfterItsTimeout) {
  const auto groups = Group::of_threads(2, {.timeout = kShortWait});
  EXPECT_EQ(groups[0].timeout(), kShortWait);
  expect_error(run_rank([&] { groups[0].barrier(); }), ErrorCode::kTimeout,
               {"barrier", "rank 1", std::to_string(kShortWait.count()) + " ms"});
}

TEST(Group, RefusesATimeoutThatIsNotPositive) {
  const GroupOptions options{.timeout = std::chrono::milliseconds(0)};
  expect_error(run_rank([&] { Group::of_threads(2, options); }), ErrorCode::kInvalidArgument,
               {"timeout is 0 ms"});
}

TEST(Group, LosesARankWhenItsLastCopyIsGone) {
  auto groups = Group::of_threads(2);
  std::optional<Group> copy = groups[1];
  groups.pop_back();
  const Group first = groups.front();
  auto gathering = std::async(std::launch::async, [&] { return first.all_gather("zero"); });
  EXPECT_EQ(copy->all_gather("one"), (std::vector<std::string>{"zero", "one"}));
  gathering.get();
  copy.reset();
  expect_error(run_rank([&] { first.barrier(); }), ErrorCode::kPeerLost, {"rank 1"});
}

}  // namespace
}  // namespace moelink::test
