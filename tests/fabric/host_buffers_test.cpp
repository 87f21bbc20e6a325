// Whole buffers between hosts: right results, and clear ends when a host or a process is lost.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conformance/buffer_rank.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/low_latency_rounds.hpp"
#include "conformance/open_buffers.hpp"
#include "conformance/outcomes.hpp"
#include "conformance/small_low_latency.hpp"
#include "fabric/host_ranks.hpp"
#include "procs/deaths.hpp"

namespace moelink::test {
namespace {

using std::chrono::seconds;

constexpr int kNumHosts = 2;
constexpr int kRanksPerHost = 2;
constexpr int kNumRanks = kNumHosts * kRanksPerHost;
constexpr Topology kTwoHosts{kNumRanks, kNumHosts};
constexpr BufferKind kHeap{"Hosts", nullptr, allocate_on_heap, copy_on_heap, copy_on_heap};
// What a call may take beyond its deadline on a busy machine.
constexpr seconds kGrace{15};

class HostBuffers : public ::testing::Test {
 protected:
  void SetUp() override { skip_without_fabric(); }
};

// Ranks find out themselves on which hosts they are.
void run_on_two_hosts(const std::function<void(BufferRank&)>& body,
                      const BufferConfig& config = {}) {
  const HostNetwork network(kNumHosts);
  const auto errors = run_on_hosts(network, kNumRanks, kRanksPerHost, [&](Bootstrap& control) {
    const Group group = connect_job(control);
    require(group.topology() == kTwoHosts, "{} nodes were found", group.topology().num_nodes);
    BufferRank rank(kHeap, group, config);
    body(rank);
    rank.buffer.close();
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

// The second dispatch goes where the first one went.
void dispatch_again(BufferRank& rank, const BufferCase& one, const DispatchResult& received) {
  const Problem problem = make_problem(one);
  const DispatchArguments made = rank.arguments(one, problem);
  DispatchResult again = rank.buffer.dispatch({.x = made.config.x,
                                               .scales = made.config.scales,
                                               .topk_weights = made.config.topk_weights,
                                               .handle = received.handle});
  again.recv_topk_idx = received.recv_topk_idx;
  rank.check(one, problem, again);
}

TEST_F(HostBuffers, DispatchAndCombineAreRightInBothLayoutsAndPaths) {
  for (const NetworkPath path : {NetworkPath::kHierarchical, NetworkPath::kDirect}) {
    run_on_two_hosts(
        [](BufferRank& rank) {
          for (const Layout layout : {Layout::kCompact, Layout::kExpertMajor}) {
            const BufferCase one{.topology = kTwoHosts,
                                 .num_tokens = {700, 13, 0, 300},
                                 .layout = layout,
                                 .num_channels = 1024};
            const DispatchResult received = rank.dispatch(one);
            rank.combine(one, received, {.num_channels = 1024, .weights = WeightKind::kGiven});
            dispatch_again(rank, one, received);
            rank.combine(one, received, {.num_channels = 1024, .num_biases = 2});
          }
          const NetworkStatistics statistics = rank.buffer.network_statistics();
          require(statistics.num_messages > 0, "nothing has crossed the network");
        },
        {.network_path = path});
  }
}

TEST_F(HostBuffers, LowLatencyRoundsAreRightWithAndWithoutHooks) {
  run_on_two_hosts([](BufferRank& rank) {
    const RoundShape shape{.num_ranks = kNumRanks, .max_tokens = 16, .hidden = 1024};
    for (std::uint64_t number = 0; number < 60; number += 2)
      run_pair_of_rounds(rank, shape, number);
  });
}

TEST_F(HostBuffers, BothModesTakeTurns) {
  run_on_two_hosts([](BufferRank& rank) {
    for (int i = 0; i < 20; ++i) {
      use_low_latency_once(rank.buffer, kNumRanks);
      use_once(rank.buffer);
    }
    rank.buffer.clean_low_latency();
    use_low_latency_once(rank.buffer, kNumRanks);
  });
}

// Where the cut host's first rank is when its link goes.
using Cut = Death;

void use_all(Buffer& buffer) {
  use_once(buffer);
  use_low_latency_once(buffer, kNumRanks);
}

void cut_link_in(const Cut& cut) {
  auto passes = std::make_shared<std::atomic<int>>(0);
  set_trace_hook([=](const TraceEvent& event) {
    const bool here = event.operation == cut.operation && event.stage == cut.stage &&
                      event.point == TracePoint::kBegin;
    if (here && ++*passes == 3) run_command("ip link set eth0 down");
  });
}

// A peer of the other host, or what a peer of this host says about one.
void require_peer_and_stage(const std::string& text, int rank) {
  const int first = rank / kRanksPerHost == 0 ? kRanksPerHost : 0;
  const bool names_peer = text.find(fmt::format("rank {}", first)) != std::string::npos ||
                          text.find(fmt::format("rank {}", first + 1)) != std::string::npos;
  require(names_peer, "no peer of the other host is named: {}", text);
  require(text.find("stage ") != std::string::npos || text.find(": send: ") != std::string::npos ||
              text.find(": receive: ") != std::string::npos,
          "no stage is named: {}", text);
}

class CutHost : public ::testing::TestWithParam<Cut> {
 protected:
  void SetUp() override { skip_without_fabric(); }
};

TEST_P(CutHost, InTheMiddleOfACallEndsThatOfEveryRankByItsDeadline) {
  constexpr seconds kPatience{2};
  const HostNetwork network(kNumHosts);
  const auto errors = run_on_hosts(network, kNumRanks, kRanksPerHost, [&](Bootstrap& control) {
    const Group group = connect_job(control);
    if (control.rank() == Rank(2)) cut_link_in(GetParam());
    auto begin = std::chrono::steady_clock::now();
    {
      Buffer buffer(group, {.timeout = kPatience});
      const Outcome outcome = outcome_of([&] {
        for (int round = 0; round < 20; ++round) {
          begin = std::chrono::steady_clock::now();
          use_all(buffer);
        }
      });
      require(outcome.code == ErrorCode::kTimeout || outcome.code == ErrorCode::kPeerLost,
              "another end: {}", outcome.text);
      require_peer_and_stage(outcome.text, control.rank().value());
      buffer.close();
    }
    require(std::chrono::steady_clock::now() - begin < kPatience + kGrace, "it took too long");
    control.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

INSTANTIATE_TEST_SUITE_P(Stages, CutHost,
                         ::testing::Values(Cut{Operation::kDispatch, Stage::kExchange},
                                           Cut{Operation::kDispatch, Stage::kSend},
                                           Cut{Operation::kCombine, Stage::kReduce},
                                           Cut{Operation::kLowLatencyDispatch, Stage::kSend},
                                           Cut{Operation::kLowLatencyCombine, Stage::kSendBack}),
                         [](const auto& instance) {
                           return ::testing::PrintToString(instance.param);
                         });

// How long after a death a rank has thrown.
void require_told_within(const std::function<void()>& traffic, const TimeOfDeath& time,
                         std::chrono::milliseconds limit, const std::vector<std::string>& words) {
  const Outcome outcome = outcome_of([&] {
    for (int round = 0; round < 20; ++round) traffic();
  });
  require_failure(outcome, ErrorCode::kPeerLost, words);
  require(time.since() < limit, "told after {} ms: {}", time.since().count(), outcome.text);
}

// Deadlines are far longer than these limits.
TEST_F(HostBuffers, KilledRankIsToldByItsHostAtOnceAndToOtherHostsByIt) {
  const HostNetwork network(kNumHosts);
  const TimeOfDeath time;
  const auto outcomes =
      run_forked_ranks_on_hosts(network, kNumRanks, kRanksPerHost, [&](Bootstrap& control) {
        const Group group = connect_job(control);
        const bool is_near = control.rank().value() >= kRanksPerHost;
        if (control.rank() == Rank(3)) die_in({Operation::kDispatch, Stage::kSend}, &time);
        Buffer buffer(group, {});
        require_told_within([&] { use_all(buffer); }, time, seconds(is_near ? 2 : 4), {"rank 3"});
      });
  for (std::size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(outcomes[rank].error, "");
  EXPECT_EQ(outcomes[3].signal, SIGKILL);
}

TEST_F(HostBuffers, KilledRankThatWasAloneOnItsHostIsFoundOutByProbes) {
  constexpr int kNumLoneHosts = 3;
  const HostNetwork network(kNumLoneHosts);
  const TimeOfDeath time;
  const auto outcomes =
      run_forked_ranks_on_hosts(network, kNumLoneHosts, 1, [&](Bootstrap& control) {
        const Group group = connect_job(control);
        require(group.topology().num_nodes == kNumLoneHosts, "hosts were not found");
        if (control.rank() == Rank(2)) die_in({Operation::kCombine, Stage::kExchange}, &time);
        Buffer buffer(group, {});
        require_told_within([&] { use_once(buffer); }, time, seconds(4), {"rank 2"});
      });
  for (std::size_t rank = 0; rank < 2; ++rank) EXPECT_EQ(outcomes[rank].error, "");
  EXPECT_EQ(outcomes[2].signal, SIGKILL);
}

}  // namespace
}  // namespace moelink::test
