// Two buffers of every rank, each used by a thread and on a stream of its own.
#include <gtest/gtest.h>

#include <exception>
#include <thread>

#include "base/cuda/owners.hpp"
#include "gpu/cuda_process_ranks.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 2;
constexpr int kNumRounds = 50;
// Small enough that the kernels of both buffers of both ranks fit one GPU together.
constexpr int kNumWorkers = 8;

// `which`: of the two buffers; their calls differ in everything that may differ.
void run_rounds(BufferRank& rank, int which) {
  const CudaStream stream = CudaStream::make();
  StreamOptions on_stream;
  on_stream.cuda_stream = stream.get();
  on_stream.completion = Completion::kAsync;  // results have events, for which checks wait
  BufferCase one{.topology = {kNumRanks, 1}, .num_tokens = {41, 19}, .num_channels = 256};
  if (which == 1) one.num_tokens = {0, 130};
  for (int round = 0; round < kNumRounds; ++round) {
    one.seed = static_cast<std::uint64_t>(2 * round + which);
    const DispatchResult received = rank.dispatch(one, on_stream);
    rank.combine(one, received,
                 {.num_channels = one.num_channels, .seed = one.seed + 50, .stream = on_stream});
  }
}

void run_both(Bootstrap& bootstrap) {
  BufferConfig config;
  config.num_workers = kNumWorkers;
  config.timeout = test_timeout(std::chrono::seconds(20));
  BufferRank first = open_rank(bootstrap, config);
  BufferRank second = open_rank(bootstrap, config);
  std::exception_ptr failure;
  std::thread other([&] {
    try {
      run_rounds(second, 1);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  try {
    run_rounds(first, 0);
  } catch (...) {
    other.join();
    throw;
  }
  other.join();
  if (failure) std::rethrow_exception(failure);
  first.buffer.close();
  second.buffer.close();
}

using CudaBuffersOfProcesses = CudaProcessTest;

TEST_F(CudaBuffersOfProcesses, AreUsedFromTwoThreadsAtOnce) {
  const auto errors = run_process_ranks(kNumRanks, run_both);
  for (std::size_t i = 0; i < errors.size(); ++i) EXPECT_EQ(errors[i], "") << "rank " << i;
}

}  // namespace
}  // namespace moelink::test
