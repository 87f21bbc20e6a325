// Combines whose rows pass through the ring in many chunks.
#include <gtest/gtest.h>

#include "gpu/cuda_process_ranks.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 4;
constexpr int kNumRounds = 3;

// Rank 0 has so many wide tokens that they fill the ring's slots three times over.
BufferCase wide_case(Layout layout) {
  BufferCase one;
  one.topology = {kNumRanks, 1};
  one.num_tokens = {1500, 40, 0, 300};
  one.num_channels = 8192;
  one.layout = layout;
  one.alignment = layout == Layout::kExpertMajor ? 8 : 1;
  return one;
}

enum class Staging { kByAll, kByOddRanks };

class CudaStagingProcesses : public CudaProcessTest {
 protected:
  // `num_workers`: 0: the buffer's default.
  static void run(Layout layout, Staging staging, int num_workers) {
    const auto errors = run_process_ranks(kNumRanks, [&](Bootstrap& bootstrap) {
      BufferConfig config;
      config.max_symmetric_bytes = std::size_t{256} << 20;
      config.num_workers = num_workers;
      config.timeout = test_timeout(std::chrono::seconds(20));
      config.stress_delay = std::chrono::microseconds(50);
      BufferRank rank = open_rank(bootstrap, config);
      const BufferCase one = wide_case(layout);
      const DispatchResult received = rank.dispatch(one);
      CombineOptions options{.num_channels = one.num_channels, .num_biases = 1};
      options.weights = WeightKind::kGiven;
      if (staging == Staging::kByOddRanks && rank.rank() % 2 == 0) {
        options.place = CombineOptions::Place::kSymmetric;
      }
      for (int round = 0; round < kNumRounds; ++round) {
        options.seed = 7 + static_cast<std::uint64_t>(round);
        rank.combine(one, received, options);
      }
      rank.buffer.close();
    });
    for (std::size_t i = 0; i < errors.size(); ++i) EXPECT_EQ(errors[i], "") << "rank " << i;
  }
};

constexpr int kAllMultiprocessors = 1000;  // none is left for blocks that only stage

TEST_F(CudaStagingProcesses, ReturnForeignRows) { run(Layout::kCompact, Staging::kByAll, 4); }

TEST_F(CudaStagingProcesses, ReturnForeignRowsWithOneMultiprocessor) {
  run(Layout::kCompact, Staging::kByAll, 1);
}

TEST_F(CudaStagingProcesses, ReturnForeignRowsFromWarpsOfPullingBlocks) {
  run(Layout::kCompact, Staging::kByAll, kAllMultiprocessors);
}

TEST_F(CudaStagingProcesses, ReturnForeignRowsWhileOthersReturnTheirsInPlace) {
  run(Layout::kCompact, Staging::kByOddRanks, 4);
}

TEST_F(CudaStagingProcesses, ReturnForeignExpertMajorRows) {
  run(Layout::kExpertMajor, Staging::kByAll, 4);
}

TEST_F(CudaStagingProcesses, ReturnForeignExpertMajorRowsFromWarpsOfPullingBlocks) {
  run(Layout::kExpertMajor, Staging::kByAll, kAllMultiprocessors);
}

}  // namespace
}  // namespace moelink::test
