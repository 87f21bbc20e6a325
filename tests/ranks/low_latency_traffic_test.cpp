// Ten thousand small low latency rounds with random delays in every stage, each checked exactly.
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "conformance/open_buffers.hpp"

namespace moelink::test {
namespace {

constexpr int kMaxTokens = 4;
constexpr int kHidden = 128;
constexpr int kTopk = 3;
constexpr int kExpertsPerRank = 2;

// A small counter-based generator: the same draw at every rank for the same round and place.
std::uint32_t draw(std::uint64_t round, std::uint64_t place) {
  std::uint64_t x = (round << 20) + place;
  x = (x ^ (x >> 31)) * 0x7fb5d329728ea185U;
  x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44dU;
  return static_cast<std::uint32_t>(x >> 33);
}

// Small integers and weights that are powers of two: every sum is exact, in any order.
std::uint16_t bfloat16_of(float value) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
}

struct Round {
  Round(std::uint64_t number, int rank, int num_ranks)
      : num_tokens(static_cast<int>(draw(number, static_cast<std::uint64_t>(rank)) % 5)),
        x(make_host_tensor(DType::kBFloat16, {num_tokens, kHidden})),
        topk_idx(make_host_tensor(DType::kInt64, {num_tokens, kTopk})),
        topk_weights(make_host_tensor(DType::kFloat32, {num_tokens, kTopk})),
        expected(static_cast<std::size_t>(num_tokens)) {
    const int num_experts = num_ranks * kExpertsPerRank;
    for (int token = 0; token < num_tokens; ++token) {
      const auto place = static_cast<std::uint64_t>(100 + (rank * kMaxTokens + token) * 8);
      const auto value = static_cast<float>(1 + draw(number, place) % 7);
      for (int i = 0; i < kHidden; ++i) {
        x.view.as<std::uint16_t>()[token * kHidden + i] = bfloat16_of(value);
      }
      const auto first = static_cast<int>(draw(number, place + 1) % 64) % num_experts;
      float sum = 0.0F;
      for (int k = 0; k < kTopk; ++k) {
        const bool selected = draw(number, place + 2 + static_cast<std::uint64_t>(k)) % 6 != 0;
        topk_idx.view.as<std::int64_t>()[token * kTopk + k] =
            selected ? (first + k * kExpertsPerRank) % num_experts : kNoExpert;
        topk_weights.view.as<float>()[token * kTopk + k] = 0.5F * static_cast<float>(k + 1);
        if (selected) sum += value * 0.5F * static_cast<float>(k + 1);
      }
      expected[static_cast<std::size_t>(token)] = bfloat16_of(sum);
    }
  }

  int num_tokens;
  Tensor x;
  Tensor topk_idx;
  Tensor topk_weights;
  std::vector<std::uint16_t> expected;
};

LowLatencyDispatchConfig dispatch_of(const Round& round, int num_ranks) {
  LowLatencyDispatchConfig config;
  config.x = round.x.view;
  config.topk_idx = round.topk_idx.view;
  config.topk_weights = round.topk_weights.view;
  config.num_max_tokens_per_rank = kMaxTokens;
  config.num_experts = num_ranks * kExpertsPerRank;
  return config;
}

LowLatencyCombineConfig combine_of(const Round& round, const LowLatencyDispatchResult& received) {
  LowLatencyCombineConfig config;
  config.x = received.recv_x.view;
  config.topk_idx = round.topk_idx.view;
  config.topk_weights = round.topk_weights.view;
  config.handle = received.handle;
  return config;
}

void check(const Round& round, const CombineNumerics numerics, const TensorView& combined) {
  for (int token = 0; token < round.num_tokens; ++token) {
    const std::uint16_t seen = combined.as<std::uint16_t>()[token * kHidden + kHidden - 1];
    ASSERT_EQ(seen, round.expected[static_cast<std::size_t>(token)])
        << "token " << token << ", numerics " << static_cast<int>(numerics);
  }
}

// Two rounds at a time: both are sent before either is received, in every second pair.
void run_pair(Buffer& buffer, std::uint64_t number) {
  const int num_ranks = buffer.group().num_ranks();
  const int rank = buffer.group().rank().value();
  const Round rounds[] = {Round(number, rank, num_ranks), Round(number + 1, rank, num_ranks)};
  const auto numerics =
      draw(number, 7) % 2 == 0 ? CombineNumerics::kExact : CombineNumerics::kPreReduced;
  std::vector<LowLatencyDispatchResult> received;
  for (const Round& round : rounds) {
    LowLatencyDispatchConfig config = dispatch_of(round, num_ranks);
    if (number % 4 == 0) config.receive = ReceivePhase::kByHook;
    received.push_back(buffer.low_latency_dispatch(config));
  }
  for (const LowLatencyDispatchResult& result : received) {
    if (result.hook) result.hook();
  }
  for (std::size_t i = 0; i < 2; ++i) {
    LowLatencyCombineConfig config = combine_of(rounds[i], received[i]);
    config.numerics = numerics;
    check(rounds[i], numerics, buffer.low_latency_combine(config).combined_x.view);
  }
}

// Sleeps for up to 60 us in one of twelve stages.
void delay(const TraceEvent& event) {
  thread_local std::uint64_t num_events =
      std::hash<std::thread::id>()(std::this_thread::get_id()) % 1000;
  const std::uint32_t drawn = draw(++num_events, static_cast<std::uint64_t>(event.stage));
  if (drawn % 12 != 0) return;
  std::this_thread::sleep_for(std::chrono::microseconds(drawn / 12 % 60));
}

TEST(LowLatencyTraffic, IsExactInTenThousandRoundsUnderRandomDelays) {
  constexpr int kNumRanks = 3;
  std::vector<Buffer> buffers = open_buffers(kNumRanks);
  set_trace_hook(delay);
  const auto outcomes = on_all_ranks(kNumRanks, [&](int rank) {
    for (std::uint64_t number = 0; number < 10'000; number += 2) {
      run_pair(buffers[static_cast<std::size_t>(rank)], number);
      if (::testing::Test::HasFatalFailure()) return;
    }
    buffers[static_cast<std::size_t>(rank)].close();
  });
  set_trace_hook({});
  expect_success(outcomes);
}

}  // namespace
}  // namespace moelink::test
