// Processes as ranks of CUDA buffers on the first GPU, for tests of faults and misuse.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "conformance/buffer_rank.hpp"
#include "conformance/outcomes.hpp"
#include "gpu/cuda_ranks.hpp"
#include "gpu/cuda_tensors.hpp"

namespace moelink::test {

constexpr int kNumProcesses = 3;
constexpr BufferKind kCudaProcesses{"Processes", run_process_ranks, allocate_on_gpu,
                                    copy_to_gpu, copy_from_gpu,     Device{DeviceKind::kCuda, 0}};

inline BufferCase small_case(int num_ranks = kNumProcesses) {
  BufferCase one;
  one.topology = {num_ranks, 1};
  return one;
}

// Once all ranks have a CUDA context: making one can take longer than tests let ranks wait.
inline BufferRank open_rank(Bootstrap& bootstrap, const BufferConfig& config = {}) {
  allocate_on_gpu(1);
  bootstrap.barrier("making CUDA contexts", soon());
  return BufferRank(kCudaProcesses, group_over(bootstrap), config);
}

inline void require_round_trip_of_bytes() {
  std::vector<unsigned char> sent(1000);
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<unsigned char>(i * 7 + 1);
  const std::shared_ptr<void> on_gpu = allocate_on_gpu(sent.size());
  std::vector<unsigned char> seen(sent.size());
  copy_by_cuda(on_gpu.get(), sent.data(), sent.size());
  copy_by_cuda(seen.data(), on_gpu.get(), seen.size());
  require(seen == sent, "CUDA copies no longer work");
}

// What a survivor can still do with its GPU: copy, and use a buffer of its own.
inline void require_gpu_works() {
  check_cuda(cudaDeviceSynchronize(), "finish the work of a broken buffer");
  require_round_trip_of_bytes();
  BufferRank alone(kCudaProcesses, Group::of_threads(1).front(), {});
  alone.round_trip(small_case(1));
  alone.buffer.close();
}

// Nothing of this rank may be under way on the GPU when it dies: what the others then see is up to
// the driver, not to Moelink.
[[noreturn]] inline void die_with_idle_gpu() {
  check_cuda(cudaDeviceSynchronize(), "finish before the end");
  die_by_sigkill();
}

class CudaProcessTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(process_has_used_cuda()) << "run each test by itself"; }

  // Expects that no rank reports an error, and that all ended by themselves but for `victim`.
  static void run(const std::function<void(Bootstrap&)>& body, std::optional<Rank> victim = {}) {
    const std::vector<RankOutcome> outcomes = run_forked_ranks(kNumProcesses, body);
    for (Rank rank(0); rank.value() < kNumProcesses; rank = rank.next()) {
      const RankOutcome& outcome = outcomes[rank.index()];
      EXPECT_EQ(outcome.signal, rank == victim ? SIGKILL : 0) << "rank " << rank.value();
      EXPECT_EQ(outcome.error, "") << "rank " << rank.value();
    }
  }
};

}  // namespace moelink::test
