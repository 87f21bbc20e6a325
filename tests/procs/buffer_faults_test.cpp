// Ranks that die or fall silent in the middle of an operation, and what the survivors do.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conformance/buffer_rank.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/heap_tensors.hpp"
#include "procs/deaths.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 4;
constexpr Rank kVictim(2);
constexpr BufferKind kHeap{"Processes", nullptr, allocate_on_heap, copy_on_heap, copy_on_heap};

// Enough bytes that a combine from symmetric memory is read in place.
BufferCase traffic(int num_ranks) {
  return {.topology = {num_ranks, 1},
          .num_tokens = {80},
          .dtype = DType::kFloat32,
          .num_channels = 1024};
}

// Exchanges tokens until a peer is missed.
std::string error_of_traffic(BufferRank& rank, const Death& death) {
  const BufferCase one = traffic(rank.num_ranks());
  try {
    for (int round = 0; round < 20; ++round) {
      const DispatchResult received = rank.dispatch(one);
      rank.combine(one, received,
                   {.dtype = one.dtype, .num_channels = one.num_channels, .place = death.place});
      rank.buffer.barrier();
    }
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kPeerLost, "another code: {}", error.what());
    return error.what();
  }
  throw std::runtime_error("nobody missed the victim");
}

// A new group of the survivors, in the same processes.
void go_on_without_victim(Rank rank, std::uint16_t port) {
  RendezvousConfig config;
  config.rank = Rank(rank < kVictim ? rank.value() : rank.value() - 1);
  config.num_ranks = kNumRanks - 1;
  config.port = port;
  config.secret = "of the survivors";
  BufferRank survivor(kHeap, Group::connect(config), {});
  survivor.round_trip(traffic(kNumRanks - 1));
  survivor.buffer.close();
}

class DyingRank : public ::testing::TestWithParam<Death> {};

TEST_P(DyingRank, IsNamedByAllSurvivorsWhichGoOnWithoutIt) {
  const Death death = GetParam();
  const std::uint16_t port = unused_port();
  const auto outcomes = run_forked_ranks(kNumRanks, [&](Bootstrap& bootstrap) {
    if (bootstrap.rank() == kVictim) die_in(death);
    const std::size_t descriptors = count_open_descriptors();
    {
      BufferRank rank(kHeap, group_over(bootstrap), {});
      const std::string text = error_of_traffic(rank, death);
      require(text.find("stage ") != std::string::npos, "no stage: {}", text);
      require(text.find("rank 2 has died") != std::string::npos, "another rank: {}", text);
      rank.buffer.close();
    }
    require(count_mappings("memfd:moelink") == 0, "regions are still mapped");
    require(count_open_descriptors() == descriptors, "descriptors: {} before, {} after",
            descriptors, count_open_descriptors());
    go_on_without_victim(bootstrap.rank(), port);
  });
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const bool victim = Rank(static_cast<int>(i)) == kVictim;
    EXPECT_EQ(outcomes[i].signal, victim ? SIGKILL : 0) << "rank " << i;
    EXPECT_EQ(outcomes[i].error, "") << "rank " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    InEveryStage, DyingRank,
    ::testing::Values(
        Death{Operation::kDispatch, Stage::kRoute}, Death{Operation::kDispatch, Stage::kExchange},
        Death{Operation::kDispatch, Stage::kPlace}, Death{Operation::kDispatch, Stage::kSend},
        Death{Operation::kDispatch, Stage::kSignal}, Death{Operation::kDispatch, Stage::kReceive},
        Death{Operation::kCombine, Stage::kExchange}, Death{Operation::kCombine, Stage::kSendBack},
        Death{Operation::kCombine, Stage::kReduce},
        Death{Operation::kCombine, Stage::kReduce, CombineOptions::Place::kSymmetric},
        Death{Operation::kCombine, Stage::kRelease, CombineOptions::Place::kSymmetric},
        Death{Operation::kBarrier, Stage::kExchange}),
    [](const auto& instance) {
      const bool in_place = instance.param.place == CombineOptions::Place::kSymmetric;
      return ::testing::PrintToString(instance.param) + (in_place ? "_in_place" : "");
    });

// The silent rank stops inside its dispatch until all others have given up.
TEST(SilentRank, IsNamedAtTheDeadlineWithStageAndValuesAndLearnsOfItAfterwards) {
  const auto outcomes = run_forked_ranks(kNumRanks, [](Bootstrap& bootstrap) {
    const bool silent = bootstrap.rank() == kVictim;
    if (silent) {
      set_trace_hook([&](const TraceEvent& event) {
        const bool here = event.stage == Stage::kSend && event.point == TracePoint::kBegin;
        if (here) bootstrap.barrier("the others have given up", soon());
      });
    }
    BufferRank rank(kHeap, group_over(bootstrap), {.timeout = std::chrono::seconds(2)});
    const BufferCase one = traffic(kNumRanks);
    try {
      rank.dispatch(one);
      if (silent) rank.buffer.barrier();
    } catch (const Error& error) {
      const std::string text = error.what();
      const char* const expected =
          silent ? "barrier (rank 2)"
                 : "stage receive: rank 2 did not arrive within 2000 ms (expected operation 1 "
                   "step 1, seen operation 0 step 0)";
      require(text.find(expected) != std::string::npos, "another text: {}", text);
      require(!silent || error.code() == ErrorCode::kPeerLost, "another code: {}", text);
      if (!silent) bootstrap.barrier("the others have given up", soon());
      return;
    }
    throw std::runtime_error("nothing was thrown");
  });
  for (const RankOutcome& outcome : outcomes) EXPECT_EQ(outcome.error, "");
}

// A rank whose user gives up between two calls: its process lives on, its buffer is gone.
TEST(LeavingRank, IsNamedWithItsReason) {
  const auto outcomes = run_forked_ranks(2, [](Bootstrap& bootstrap) {
    {
      BufferRank rank(kHeap, group_over(bootstrap), {});
      rank.round_trip(traffic(2));
      if (bootstrap.rank() == Rank(0)) {
        try {
          rank.round_trip(traffic(2));
          throw std::runtime_error("nothing was thrown");
        } catch (const Error& error) {
          const std::string text = error.what();
          require(text.find("rank 1 gave up: its buffer was destroyed without close()") !=
                      std::string::npos,
                  "another text: {}", text);
        }
      }
    }
    bootstrap.barrier("end of test", soon());
  });
  for (const RankOutcome& outcome : outcomes) EXPECT_EQ(outcome.error, "");
}

}  // namespace
}  // namespace moelink::test
