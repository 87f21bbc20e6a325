// Many low latency rounds while every block of every rank is held up at random, each checked.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/environment.hpp"
#include "conformance/low_latency_rounds.hpp"
#include "gpu/cuda_process_ranks.hpp"
#include "gpu/test_rounds.hpp"

namespace moelink::test {
namespace {

// Rows have several parts; with one worker a block sends many tokens, and announces them too.
RoundShape shape_of(int num_ranks, int num_workers = 0) {
  return {.num_ranks = num_ranks, .max_tokens = 16, .hidden = 2048, .num_workers = num_workers};
}

class CudaLowLatencyStressProcesses : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(process_has_used_cuda()) << "run each test by itself"; }

  // `lines`: MOELINK_LINES of the ranks.
  static void run_rounds(const RoundShape& shape, const std::string& lines,
                         Survival survival = Survival::kRaise) {
    ::setenv("MOELINK_LINES", lines.c_str(), 1);
    const auto errors = run_process_ranks(shape.num_ranks, [&](Bootstrap& bootstrap) {
      require(environment().line_format == lines, "MOELINK_LINES has been read before");
      BufferConfig config;
      config.stress_delay = std::chrono::microseconds(20);
      config.timeout = test_timeout(std::chrono::seconds(20));
      config.survival = survival;
      BufferRank rank = open_rank(bootstrap, config);
      const auto end = static_cast<std::uint64_t>(num_rounds());
      for (std::uint64_t number = 0; number < end; number += 2) {
        run_pair_of_rounds(rank, shape, number);
      }
      rank.buffer.close();
    });
    EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
  }
};

TEST_F(CudaLowLatencyStressProcesses, RandomDelaysOfTwoRanksChangeNoResult) {
  run_rounds(shape_of(2), "auto");
}

TEST_F(CudaLowLatencyStressProcesses, RandomDelaysOfTwoRanksChangeNoResultOfSplitLines) {
  run_rounds(shape_of(2), "split");
}

TEST_F(CudaLowLatencyStressProcesses, RandomDelaysOfFourRanksChangeNoResult) {
  run_rounds(shape_of(4), "auto");
}

TEST_F(CudaLowLatencyStressProcesses, RandomDelaysOfFourRanksChangeNoResultOfSplitLines) {
  run_rounds(shape_of(4), "split");
}

TEST_F(CudaLowLatencyStressProcesses, RandomDelaysChangeNoResultWhereRanksMayBeLost) {
  run_rounds(shape_of(3), "auto", Survival::kMask);
}

TEST_F(CudaLowLatencyStressProcesses, RandomDelaysChangeNoResultOfOneBlock) {
  run_rounds(shape_of(2, 1), "auto");
}

}  // namespace
}  // namespace moelink::test
