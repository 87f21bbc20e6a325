// Millions of lines between two processes: whoever sees a line's epoch sees all of its words.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/cuda/owners.hpp"
#include "gpu/cuda_ranks.hpp"
#include "gpu/line_traffic.hpp"
#include "gpu/rank_skips.hpp"
#include "gpu/test_rounds.hpp"

namespace moelink::test {
namespace {

constexpr Rank kWriter(0);
constexpr Rank kReader(1);
constexpr int kLineRounds = 64;  // as many take as long as one of other stress tests

// Whole lines are promised within a GPU and over NVLink.
void skip_if_unpromised(const SymmetricMemory& memory, LineFormat format) {
  if (format == LineFormat::kSplit) return;
  if (std::strcmp(memory.kind(), "cuda_pinned") == 0)
    skip_rank("the ranks share memory of the CPU");
  const int writer = device_of(kWriter);
  const int reader = device_of(kReader);
  if (writer == reader) return;
  int native = 0;
  check_cuda(
      cudaDeviceGetP2PAttribute(&native, cudaDevP2PAttrNativeAtomicSupported, writer, reader),
      "ask how devices are linked");
  if (native == 0) skip_rank("the GPUs are not linked by NVLink");
}

LineTraffic traffic_over(const SymmetricMemory& memory, LineFormat format) {
  LineTraffic traffic;
  traffic.format = format;
  traffic.num_rounds = static_cast<std::uint64_t>(num_rounds()) * kLineRounds;
  traffic.longest_delay_ns = 2000;
  traffic.timeout_ns = static_cast<std::uint64_t>(
      std::chrono::nanoseconds(test_timeout(std::chrono::seconds(20))).count());
  traffic.slots = memory.region(kReader);
  traffic.seen_rounds = reinterpret_cast<std::uint64_t*>(memory.region(kWriter));
  return traffic;
}

// Runs this rank's kernel to its end.
LineReport run_traffic(Bootstrap& bootstrap, LineTraffic traffic) {
  const CudaStream stream = CudaStream::make();
  const auto memory = make_device_memory(sizeof(LineReport));
  traffic.report = reinterpret_cast<LineReport*>(memory.get());
  bootstrap.barrier("before the lines", soon());
  if (bootstrap.rank() == kWriter) {
    launch_line_writer(traffic, stream.get());
  } else {
    launch_line_reader(traffic, stream.get());
  }
  check_cuda(cudaStreamSynchronize(stream.get()), "move lines");
  LineReport report{};
  copy_by_cuda(&report, memory.get(), sizeof(report));
  bootstrap.barrier("after the lines", soon());
  require(report.num_late == 0, "{} warps have waited in vain", report.num_late);
  return report;
}

class CudaLinesProcesses : public ::testing::TestWithParam<LineFormat> {
 protected:
  void SetUp() override { ASSERT_FALSE(process_has_used_cuda()) << "run each test by itself"; }

  // `check` gets what the reader has seen.
  static void run(const std::function<void(LineTraffic&)>& change,
                  const std::function<void(const LineTraffic&, const LineReport&)>& check) {
    const auto errors = run_cuda_processes(2, [&](Bootstrap& bootstrap) {
      const auto memory = open_on_own_device(
          "auto", bootstrap, LineTraffic::kNumWarps * LineTraffic::kSlotBytes, soon());
      skip_if_unpromised(*memory, GetParam());
      LineTraffic traffic = traffic_over(*memory, GetParam());
      change(traffic);
      const LineReport report = run_traffic(bootstrap, traffic);
      if (bootstrap.rank() == kReader) check(traffic, report);
    });
    const std::string reason = skip_reason(errors);
    if (!reason.empty()) GTEST_SKIP() << reason;
    EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
  }
};

INSTANTIATE_TEST_SUITE_P(Formats, CudaLinesProcesses,
                         ::testing::Values(LineFormat::kSplit, LineFormat::kWhole),
                         [](const auto& instance) {
                           return std::string(instance.param == LineFormat::kSplit ? "Split"
                                                                                   : "Whole");
                         });

TEST_P(CudaLinesProcesses, SeeAllWordsOfALineThatShowsItsEpoch) {
  run([](LineTraffic&) {},
      [](const LineTraffic& traffic, const LineReport& report) {
        require(
            report.num_torn == 0,
            "{} lines were torn; the first: warp {}, round {}, vector {}: {:#x}, expected {:#x}",
            report.num_torn, report.warp, report.round, report.vector, report.seen,
            report.expected);
        const auto per_round = std::uint64_t{LineTraffic::kNumWarps} * LineTraffic::kLinesPerWarp;
        require(report.num_lines == per_round * traffic.num_rounds, "{} lines have arrived",
                report.num_lines);
      });
}

// Without this, the test above could not fail.
TEST_P(CudaLinesProcesses, NoticeLinesThatShowTheirEpochTooEarly) {
  run(
      [](LineTraffic& traffic) {
        traffic.flaw = WriterFlaw::kEarlyEpochs;
        traffic.num_rounds = 100;
      },
      [](const LineTraffic&, const LineReport& report) {
        require(report.num_torn > 0, "no torn line was noticed");
      });
}

}  // namespace
}  // namespace moelink::test
