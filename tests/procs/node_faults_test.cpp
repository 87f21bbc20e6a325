// Ranks of several nodes, joined by libfabric, that die or fall silent in the middle of an
// operation, and what the survivors do.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "conformance/buffer_rank.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/open_buffers.hpp"
#include "conformance/small_low_latency.hpp"
#include "procs/deaths.hpp"

namespace moelink::test {
namespace {

using std::chrono::seconds;

constexpr int kNumRanks = 4;
constexpr Rank kVictim(2);
constexpr Topology kTwoNodes{kNumRanks, 2};
constexpr BufferKind kHeap{"Processes", nullptr, allocate_on_heap, copy_on_heap, copy_on_heap};
// Between a death and the last error, on a busy machine; waits may last far longer.
constexpr seconds kSoon{10};

BufferCase traffic() {
  return {
      .topology = kTwoNodes, .num_tokens = {80}, .dtype = DType::kFloat32, .num_channels = 1024};
}

// One pass through everything that somebody may die in.
void exchange_tokens(BufferRank& rank, const Death& death) {
  if (death.operation == Operation::kLowLatencyDispatch ||
      death.operation == Operation::kLowLatencyCombine) {
    return use_low_latency_once(rank.buffer, kNumRanks);
  }
  const BufferCase one = traffic();
  const DispatchResult received = rank.dispatch(one);
  rank.combine(one, received,
               {.dtype = one.dtype, .num_channels = one.num_channels, .place = death.place});
  rank.buffer.barrier();
}

const std::vector<Death>& deaths() {
  using enum Operation;
  static const std::vector<Death> all = {
      {kDispatch, Stage::kRoute},
      {kDispatch, Stage::kExchange},
      {kDispatch, Stage::kSend},
      {kDispatch, Stage::kReceive},
      {kCombine, Stage::kExchange},
      {kCombine, Stage::kSendBack},
      {kCombine, Stage::kReduce},
      {kCombine, Stage::kRelease, CombineOptions::Place::kSymmetric},
      {kBarrier, Stage::kExchange},
      {kLowLatencyDispatch, Stage::kSend},
      {kLowLatencyDispatch, Stage::kReceive},
      {kLowLatencyCombine, Stage::kSendBack},
      {kLowLatencyCombine, Stage::kReduce}};
  return all;
}

std::string name_of(const ::testing::TestParamInfo<Death>& instance) {
  return ::testing::PrintToString(instance.param);
}

void expect_that_only_victim_died(const std::vector<RankOutcome>& outcomes) {
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const bool victim = Rank(static_cast<int>(i)) == kVictim;
    EXPECT_EQ(outcomes[i].signal, victim ? SIGKILL : 0) << "rank " << i;
    EXPECT_EQ(outcomes[i].error, "") << "rank " << i;
  }
}

// What libfabric keeps for the life of a process exists after this.
void connect_once(Bootstrap& bootstrap) {
  Buffer buffer(group_over(bootstrap, {.num_nodes = 2}), {});
  buffer.close();
}

class DyingRankOfANode : public ::testing::TestWithParam<Death> {};

// Until the victim is missed.
void require_error(BufferRank& rank, const Death& death, const TimeOfDeath& time) {
  try {
    for (int round = 0; round < 20; ++round) exchange_tokens(rank, death);
  } catch (const Error& error) {
    const std::string text = error.what();
    require(time.since() < kSoon, "told after {} ms: {}", time.since().count(), text);
    require(error.code() == ErrorCode::kPeerLost, "another code: {}", text);
    require(text.find("rank 2") != std::string::npos, "another rank: {}", text);
    return;
  }
  throw std::runtime_error("nobody missed the victim");
}

// A new group of the survivors, in the same processes and as many nodes as there are ranks.
void go_on_without_victim(Rank rank, std::uint16_t port) {
  RendezvousConfig config;
  config.rank = Rank(rank < kVictim ? rank.value() : rank.value() - 1);
  config.num_ranks = kNumRanks - 1;
  config.port = port;
  config.secret = "of the survivors";
  Buffer survivor(Group::connect(config, {.num_nodes = kNumRanks - 1}), {});
  use_once(survivor);
  use_low_latency_once(survivor, kNumRanks - 1);
  survivor.close();
}

TEST_P(DyingRankOfANode, IsNamedByAllSurvivorsWhichGoOnWithoutIt) {
  const Death death = GetParam();
  const std::uint16_t port = unused_port();
  const TimeOfDeath time;
  const auto outcomes = run_forked_ranks(kNumRanks, [&](Bootstrap& bootstrap) {
    for (int i = 0; i < 2; ++i) connect_once(bootstrap);
    if (bootstrap.rank() == kVictim) die_in(death, &time);
    const std::size_t descriptors = count_open_descriptors();
    {
      BufferRank rank(kHeap, group_over(bootstrap, {.num_nodes = 2}), {});
      require_error(rank, death, time);
      rank.buffer.close();
    }
    require(count_mappings("memfd:moelink") == 0, "regions are still mapped");
    require(count_open_descriptors() <= descriptors, "descriptors: {} before, {} after",
            descriptors, count_open_descriptors());
    go_on_without_victim(bootstrap.rank(), port);
  });
  expect_that_only_victim_died(outcomes);
}

INSTANTIATE_TEST_SUITE_P(InEveryStage, DyingRankOfANode, ::testing::ValuesIn(deaths()), name_of);

class MaskedRankOfANode : public ::testing::TestWithParam<Death> {};

// The sums of a pass in which somebody dies may have been made with it or without.
void exchange_whatever_comes(Buffer& buffer) {
  const SmallCall call(kNumRanks);
  const DispatchResult received = buffer.dispatch(call.config);
  buffer.combine({.x = received.recv_x.view, .handle = received.handle});
  buffer.barrier();
  const SmallLowLatency small(kNumRanks);
  buffer.low_latency_combine(small.combine(buffer.low_latency_dispatch(small.config)));
}

TEST_P(MaskedRankOfANode, DropsOutAndTheSurvivorsGoOnInTheSameBuffer) {
  const TimeOfDeath time;
  const auto outcomes = run_forked_ranks(kNumRanks, [&](Bootstrap& bootstrap) {
    if (bootstrap.rank() == kVictim) die_in(GetParam(), &time);
    Buffer buffer(group_over(bootstrap, {.num_nodes = 2}), {.survival = Survival::kMask});
    for (int round = 0; round < 5; ++round) exchange_whatever_comes(buffer);
    require(time.since() < kSoon, "gone on after {} ms", time.since().count());
    for (Rank peer(0); peer.value() < kNumRanks; peer = peer.next()) {
      if (peer == bootstrap.rank()) continue;
      require(buffer.is_masked(peer) == (peer == kVictim), "masks are wrong for rank {}",
              peer.value());
    }
    for (int round = 0; round < 3; ++round) {
      use_once(buffer);
      use_low_latency_once(buffer, kNumRanks - 1);
    }
    buffer.close();
  });
  expect_that_only_victim_died(outcomes);
}

INSTANTIATE_TEST_SUITE_P(InManyStages, MaskedRankOfANode,
                         ::testing::Values(Death{Operation::kDispatch, Stage::kExchange},
                                           Death{Operation::kDispatch, Stage::kSend},
                                           Death{Operation::kDispatch, Stage::kReceive},
                                           Death{Operation::kCombine, Stage::kSendBack},
                                           Death{Operation::kCombine, Stage::kReduce},
                                           Death{Operation::kLowLatencyDispatch, Stage::kSend},
                                           Death{Operation::kLowLatencyCombine, Stage::kSendBack}),
                         name_of);

// Alone on its node: nobody shares memory with it, so only the network can tell.
TEST(DyingNode, OfOneRankIsFoundOutByProbes) {
  constexpr int kNumNodes = 3;
  const TimeOfDeath time;
  const auto outcomes = run_forked_ranks(kNumNodes, [&](Bootstrap& bootstrap) {
    if (bootstrap.rank() == kVictim) die_in({Operation::kDispatch, Stage::kSend}, &time);
    Buffer buffer(group_over(bootstrap, {.num_nodes = kNumNodes}), {});
    const Outcome outcome = outcome_of([&] {
      for (int round = 0; round < 20; ++round) use_once(buffer);
    });
    require_failure(outcome, ErrorCode::kPeerLost, {"rank 2"});
    require(time.since() < seconds(5), "told after {} ms: {}", time.since().count(), outcome.text);
  });
  expect_that_only_victim_died(outcomes);
}

// Stops inside its dispatch until all others have given up.
void fall_silent_in_dispatch(Bootstrap& bootstrap) {
  set_trace_hook([&](const TraceEvent& event) {
    const bool here = event.stage == Stage::kSend && event.point == TracePoint::kBegin;
    if (here) bootstrap.barrier("the others have given up", soon());
  });
}

class SilentRankOfANode : public ::testing::TestWithParam<NetworkPath> {};

// Who waits for it directly names it; others may name who waits for it.
TEST_P(SilentRankOfANode, IsNamedAtTheDeadlineAndLearnsOfItAfterwards) {
  const bool direct = GetParam() == NetworkPath::kDirect;
  const auto outcomes = run_forked_ranks(kNumRanks, [&](Bootstrap& bootstrap) {
    const bool silent = bootstrap.rank() == kVictim;
    if (silent) fall_silent_in_dispatch(bootstrap);
    BufferRank rank(kHeap, group_over(bootstrap, {.num_nodes = 2}),
                    {.timeout = seconds(2), .network_path = GetParam()});
    const auto begin = std::chrono::steady_clock::now();
    const Outcome outcome = outcome_of([&] {
      rank.dispatch(traffic());
      rank.buffer.barrier();
    });
    if (silent) return require_failure(outcome, ErrorCode::kPeerLost, {"rank 2", "gave up"});
    require(std::chrono::steady_clock::now() - begin < seconds(2) + kSoon, "told too late");
    const std::string own = fmt::format("dispatch (rank {}), stage ", bootstrap.rank().value());
    require_words(outcome.text, {own, " within 2000 ms"});
    if (direct) require_words(outcome.text, {"rank 2 "});
    bootstrap.barrier("the others have given up", soon());
  });
  for (const RankOutcome& outcome : outcomes) EXPECT_EQ(outcome.error, "");
}

INSTANTIATE_TEST_SUITE_P(Paths, SilentRankOfANode,
                         ::testing::Values(NetworkPath::kHierarchical, NetworkPath::kDirect),
                         [](const auto& instance) {
                           return instance.param == NetworkPath::kDirect ? "Direct"
                                                                         : "Hierarchical";
                         });

}  // namespace
}  // namespace moelink::test
