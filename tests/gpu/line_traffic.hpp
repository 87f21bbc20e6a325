// Lines that one rank writes to a peer's memory again and again, while the peer looks at each.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "protocol/line_area.hpp"

namespace moelink::test {

// What the writer does wrong, so that a test can see that the reader notices.
enum class WriterFlaw : std::uint32_t {
  kNone,
  kEarlyEpochs,  // lines show the new epoch a while before they have its words
};

// Device memory, zero at first.
struct LineReport {
  unsigned long long num_lines;  // that have arrived
  unsigned long long num_torn;   // looks at a line that showed its epoch but had other words
  std::uint32_t num_late;        // warps whose peer did not come
  std::uint32_t is_claimed;      // the rest is about the first torn line
  std::int32_t warp;
  std::int32_t vector;
  std::uint64_t round;
  std::uint64_t expected;
  std::uint64_t seen;
};

struct LineTraffic {
  static constexpr int kNumBlocks = 32;
  static constexpr int kNumThreads = 512;
  static constexpr int kNumWarps = kNumBlocks * kNumThreads / 32;
  static constexpr int kSteps = 2;  // vectors of a lane, as in the low latency kernels
  static constexpr int kVectorsPerWarp = 32 * kSteps;
  static constexpr int kLinesPerWarp = kVectorsPerWarp / kVectorsPerLine;
  static constexpr std::size_t kSlotBytes = kVectorsPerWarp * kLineVectorBytes;

  LineFormat format = LineFormat::kSplit;
  WriterFlaw flaw = WriterFlaw::kNone;
  std::uint64_t num_rounds = 0;
  std::uint64_t longest_delay_ns = 0;
  std::uint64_t timeout_ns = 0;  // of each wait
  // As mapped by the caller: the reader's memory [warps, kSlotBytes], and the writer's [warps], in
  // which the reader says which round it has seen. Both zero at first.
  std::byte* slots = nullptr;
  std::uint64_t* seen_rounds = nullptr;
  LineReport* report = nullptr;  // of the caller
};

// On the current device; kernels of one writer and one reader, in any order.
void launch_line_writer(const LineTraffic& traffic, cudaStream_t stream);
void launch_line_reader(const LineTraffic& traffic, cudaStream_t stream);

}  // namespace moelink::test
