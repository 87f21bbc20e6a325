// Many operations while every block of every rank is held up at random; all results are checked.
#include <gtest/gtest.h>

#include <chrono>

#include "conformance/buffer_rank.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "gpu/cuda_tensors.hpp"
#include "gpu/test_rounds.hpp"

namespace moelink::test {
namespace {

constexpr BufferKind kProcesses{"Processes", run_process_ranks, allocate_on_gpu,
                                copy_to_gpu, copy_from_gpu,     Device{DeviceKind::kCuda, 0}};

void run_rounds(int num_ranks, Layout layout) {
  const auto errors = run_process_ranks(num_ranks, [&](Bootstrap& bootstrap) {
    BufferConfig config;
    config.stress_delay = std::chrono::microseconds(20);
    config.timeout = test_timeout(std::chrono::seconds(20));
    BufferRank rank(kProcesses, group_over(bootstrap), config);
    BufferCase one{.topology = {num_ranks, 1},
                   .num_tokens = {33, 7, 0, 64},
                   .layout = layout,
                   .alignment = 4,
                   .num_channels = 128};
    for (int round = 0; round < num_rounds(); ++round) {
      one.seed = static_cast<std::uint64_t>(round);
      try {
        rank.round_trip(one);
      } catch (const std::exception& error) {
        throw std::runtime_error(fmt::format("round {}: {}", round, error.what()));
      }
    }
    rank.buffer.close();
  });
  for (std::size_t i = 0; i < errors.size(); ++i) EXPECT_EQ(errors[i], "") << "rank " << i;
}

TEST(CudaStressProcesses, RandomDelaysOfTwoRanksChangeNoResult) { run_rounds(2, Layout::kCompact); }

TEST(CudaStressProcesses, RandomDelaysOfFourRanksChangeNoExpertMajorResult) {
  run_rounds(4, Layout::kExpertMajor);
}

}  // namespace
}  // namespace moelink::test
