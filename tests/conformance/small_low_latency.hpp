// A small low latency call whose sums everybody knows.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "moelink/moelink.hpp"

namespace moelink::test {

inline constexpr int kHidden = 128;

// Three tokens of ones, each to every expert (one per rank), with weight 1.
struct SmallLowLatency {
  explicit SmallLowLatency(int num_ranks)
      : topk_idx(make_host_tensor(DType::kInt32, {3, num_ranks})),
        weights(make_host_tensor(DType::kFloat32, {3, num_ranks})) {
    for (int i = 0; i < 3 * kHidden; ++i) x.view.as<std::uint16_t>()[i] = 0x3f80;
    for (int i = 0; i < 3 * num_ranks; ++i) {
      topk_idx.view.as<std::int32_t>()[i] = i % num_ranks;
      weights.view.as<float>()[i] = 1.0F;
    }
    config.x = x.view;
    config.topk_idx = topk_idx.view;
    config.topk_weights = weights.view;
    config.num_max_tokens_per_rank = 4;
    config.num_experts = num_ranks;
  }

  LowLatencyCombineConfig combine(const LowLatencyDispatchResult& received) const {
    LowLatencyCombineConfig made;
    made.x = received.recv_x.view;
    made.topk_idx = topk_idx.view;
    made.topk_weights = weights.view;
    made.handle = received.handle;
    return made;
  }

  Tensor x = make_host_tensor(DType::kBFloat16, {3, kHidden});
  Tensor topk_idx;
  Tensor weights;
  LowLatencyDispatchConfig config;
};

// bfloat16.
inline std::uint16_t bits_of_sum(int terms) {
  constexpr std::uint16_t kSums[] = {0, 0x3f80, 0x4000, 0x4040, 0x4080};  // 0 to 4
  return kSums[terms];
}

// Dispatches and combines the ones; throws if a sum differs from `terms`.
inline void use_low_latency_once(Buffer& buffer, int terms) {
  const SmallLowLatency call(buffer.group().num_ranks());
  const LowLatencyDispatchResult received = buffer.low_latency_dispatch(call.config);
  const Tensor combined = buffer.low_latency_combine(call.combine(received)).combined_x;
  for (int i = 0; i < 3 * kHidden; ++i) {
    if (combined.view.as<std::uint16_t>()[i] != bits_of_sum(terms)) {
      throw std::runtime_error("a low latency sum is wrong");
    }
  }
}

}  // namespace moelink::test
