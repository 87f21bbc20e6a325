// A rank that is late in reading what its peers return: they must neither overwrite nor reuse it.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "conformance/buffer_rank.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/thread_ranks.hpp"

namespace moelink::test {
namespace {

constexpr BufferKind kThreads{"Threads", run_thread_ranks, allocate_on_heap, copy_on_heap,
                              copy_on_heap};
constexpr Rank kSlow(1);

class SlowReader : public ::testing::TestWithParam<Layout> {
 protected:
  // Gives the peers time to do what they must not do yet.
  void SetUp() override {
    set_trace_hook([](const TraceEvent& event) {
      const bool here =
          event.rank == kSlow && event.stage == Stage::kReduce && event.point == TracePoint::kBegin;
      if (here) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    });
  }
  void TearDown() override { set_trace_hook({}); }

  // Every rank returns several MiB, which staging cuts into chunks.
  static BufferCase traffic() {
    return {.topology = {3, 1},
            .num_topk = 2,
            .num_tokens = {700},
            .layout = GetParam(),
            .dtype = DType::kFloat32,
            .num_channels = 1024};
  }

  static void run(const std::function<void(BufferRank&)>& body) {
    const auto errors = run_thread_ranks(3, [&](Bootstrap& bootstrap) {
      BufferRank rank(kThreads, group_over(bootstrap), {});
      body(rank);
      rank.buffer.close();
    });
    for (const std::string& error : errors) EXPECT_EQ(error, "");
  }
};

TEST_P(SlowReader, FindsEveryStagedChunkUnharmed) {
  const BufferCase one = traffic();
  run([&](BufferRank& rank) {
    const DispatchResult received = rank.dispatch(one);
    rank.combine(one, received, {.dtype = one.dtype, .num_channels = one.num_channels});
  });
}

TEST_P(SlowReader, IsWaitedForBeforeTensorsThatItReadsInPlaceAreGivenBack) {
  const BufferCase one = traffic();
  const CombineOptions options{.dtype = one.dtype,
                               .num_channels = one.num_channels,
                               .place = CombineOptions::Place::kSymmetric};
  run([&](BufferRank& rank) {
    const Problem problem = make_problem(one);
    const DispatchResult received = rank.dispatch(one);
    const CombineArguments made = rank.arguments(problem, received, options);
    const CombineResult result = rank.buffer.combine(made.config);
    std::memset(made.x.view.data, 0x5a, made.x.view.num_bytes());  // it is the user's again
    rank.check(problem, options, made, result);
  });
}

TEST_P(SlowReader, OfOneCombineDoesNotMeetTheRowsOfTheNext) {
  const BufferCase one = traffic();
  run([&](BufferRank& rank) {
    const DispatchResult received = rank.dispatch(one);
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      rank.combine(one, received,
                   {.dtype = one.dtype, .num_channels = one.num_channels, .seed = seed});
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Cpu, SlowReader, ::testing::Values(Layout::kCompact, Layout::kExpertMajor),
                         [](const auto& instance) {
                           return instance.param == Layout::kCompact ? "Compact" : "ExpertMajor";
                         });

}  // namespace
}  // namespace moelink::test
