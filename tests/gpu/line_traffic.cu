// The kernels behind line_traffic.hpp. Each warp of the writer has a slot for a warp of the reader.
#include "base/cuda/check.hpp"
#include "device/line_wait.cuh"
#include "device/memory_order.cuh"
#include "gpu/line_traffic.hpp"

namespace moelink::test {
namespace {

constexpr int kSteps = LineTraffic::kSteps;
constexpr int kVectors = LineTraffic::kVectorsPerWarp;
constexpr std::uint64_t kHeadStartNs = 2000;  // of epochs that come too early

__device__ std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

__device__ int number_of_warp() {
  return static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / warpSize);
}

__device__ int vector_of_step(int step) {
  return step * warpSize + static_cast<int>(threadIdx.x % warpSize);
}

__device__ uint4* slot_of(const LineTraffic& traffic, int warp) {
  return reinterpret_cast<uint4*>(traffic.slots) + warp * kVectors;
}

// What the message of a warp has at `offset`: different in every word of every round.
__device__ std::uint64_t word_at(int warp, std::uint64_t round, std::uint32_t offset) {
  return mix(mix(round) + (static_cast<std::uint64_t>(warp) << 32 | offset));
}

__device__ void pause(std::uint64_t nanoseconds) {
  const std::uint64_t start = device::now_ns();
  while (device::now_ns() - start < nanoseconds) {
  }
}

// Holds a warp up in every eighth round.
__device__ void hold_up(const LineTraffic& traffic, int warp, std::uint64_t round,
                        std::uint64_t salt) {
  const std::uint64_t drawn = mix(mix(round + salt) + static_cast<std::uint64_t>(warp));
  if (drawn % 8 == 0) pause(drawn / 8 % traffic.longest_delay_ns);
}

// All lanes of a warp: whether a wait that began at `start_ns` has lasted too long.
__device__ bool is_late(const LineTraffic& traffic, std::uint64_t start_ns) {
  if (__any_sync(~0U, device::now_ns() - start_ns > traffic.timeout_ns) == 0) return false;
  if (threadIdx.x % warpSize == 0) atomicAdd(&traffic.report->num_late, 1U);
  return true;
}

// All lanes: the words of `round` under the epoch `shown`.
template <class Line>
__device__ void write_message(uint4* to, int warp, std::uint64_t round, std::uint64_t shown) {
  __syncwarp();  // the lanes of a line store it together
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int v = vector_of_step(step);
    const LineWords words = words_of_vector(Line::kFormat, v);
    const std::uint64_t second =
        words.has_second ? word_at(warp, round, words.first + kLineWordBytes) : 0;
    device::store_vector(to + v,
                         Line::seal(word_at(warp, round, words.first), second, v, Epoch(shown)));
  }
}

template <class Line>
__global__ __launch_bounds__(LineTraffic::kNumThreads) void write_lines(
    const __grid_constant__ LineTraffic traffic) {
  const int warp = number_of_warp();
  uint4* const slot = slot_of(traffic, warp);
#pragma unroll 1
  for (std::uint64_t round = 1; round <= traffic.num_rounds; ++round) {
    hold_up(traffic, warp, round, 0);
    if (traffic.flaw == WriterFlaw::kEarlyEpochs) {
      write_message<Line>(slot, warp, round - 1, round);
      pause(kHeadStartNs);
    }
    write_message<Line>(slot, warp, round, round);
    const std::uint64_t start_ns = device::now_ns();
    while (__all_sync(~0U, device::load_relaxed_sys(traffic.seen_rounds + warp) >= round) == 0) {
      if (is_late(traffic, start_ns)) return;
    }
  }
}

// The words that a lane is to see.
template <class Line>
struct ExpectedWords {
  std::uint64_t first[kSteps];
  std::uint64_t second[kSteps];

  __device__ ExpectedWords(int warp, std::uint64_t round) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const LineWords words = words_of_vector(Line::kFormat, vector_of_step(step));
      first[step] = word_at(warp, round, words.first);
      second[step] = words.has_second ? word_at(warp, round, words.first + kLineWordBytes) : 0;
    }
  }
};

__device__ void note_torn(LineReport& report, int warp, std::uint64_t round, int vector,
                          std::uint64_t expected, std::uint64_t seen) {
  atomicAdd(&report.num_torn, 1ULL);
  if (atomicExch(&report.is_claimed, 1U) != 0) return;
  report.warp = warp;
  report.vector = vector;
  report.round = round;
  report.expected = expected;
  report.seen = seen;
}

// All lanes: each line of a step that shows the epoch must have all words of its round, whatever
// the other lines of the message are like.
template <class Line>
__device__ void check_step(const LineTraffic& traffic, int warp, std::uint64_t round,
                           const ExpectedWords<Line>& expected, int step, const uint4& value) {
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int v = vector_of_step(step);
  const unsigned lanes_of_line = 0xffU << (lane / kVectorsPerLine * kVectorsPerLine);
  const unsigned arrived = __ballot_sync(~0U, Line::has_arrived(value, v, Epoch(round)));
  const bool shows_epoch = (arrived & lanes_of_line) == lanes_of_line;
  const bool has_second = words_of_vector(Line::kFormat, v).has_second;
  if (shows_epoch && Line::first(value) != expected.first[step]) {
    note_torn(*traffic.report, warp, round, v, expected.first[step], Line::first(value));
  }
  if (shows_epoch && has_second && Line::second(value) != expected.second[step]) {
    note_torn(*traffic.report, warp, round, v, expected.second[step], Line::second(value));
  }
}

template <class Line>
__global__ __launch_bounds__(LineTraffic::kNumThreads) void read_lines(
    const __grid_constant__ LineTraffic traffic) {
  const int warp = number_of_warp();
  const uint4* const slot = slot_of(traffic, warp);
  const device::SystemWord<std::uint64_t> seen_round(traffic.seen_rounds[warp]);
#pragma unroll 1
  for (std::uint64_t round = 1; round <= traffic.num_rounds; ++round) {
    const ExpectedWords<Line> expected(warp, round);
    const std::uint64_t start_ns = device::now_ns();
    device::LineBatch<Line, kSteps> batch;
    batch.load(slot, kVectors);
    for (;;) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        check_step(traffic, warp, round, expected, step, batch.values[step]);
      }
      if (batch.have_arrived(kVectors, Epoch(round))) break;
      if (is_late(traffic, start_ns)) return;
      batch.load(slot, kVectors);
    }
    hold_up(traffic, warp, round, traffic.num_rounds);
    __syncwarp();
    if (threadIdx.x % warpSize == 0) seen_round.store(round, cuda::memory_order_relaxed);
  }
  if (threadIdx.x % warpSize != 0) return;
  atomicAdd(&traffic.report->num_lines, traffic.num_rounds * LineTraffic::kLinesPerWarp);
}

}  // namespace

void launch_line_writer(const LineTraffic& traffic, cudaStream_t stream) {
  const auto kernel = traffic.format == LineFormat::kWhole ? write_lines<device::WholeLine>
                                                           : write_lines<device::SplitLine>;
  kernel<<<LineTraffic::kNumBlocks, LineTraffic::kNumThreads, 0, stream>>>(traffic);
  check_cuda(cudaGetLastError(), "launch a writer of lines");
}

void launch_line_reader(const LineTraffic& traffic, cudaStream_t stream) {
  const auto kernel = traffic.format == LineFormat::kWhole ? read_lines<device::WholeLine>
                                                           : read_lines<device::SplitLine>;
  kernel<<<LineTraffic::kNumBlocks, LineTraffic::kNumThreads, 0, stream>>>(traffic);
  check_cuda(cudaGetLastError(), "launch a reader of lines");
}

}  // namespace moelink::test
