// Low latency rounds whose sums are exact in any order, so that every result can be checked.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <vector>

#include "conformance/buffer_rank.hpp"

namespace moelink::test {

// A small counter-based generator: the same draw at every rank for the same round and place.
inline std::uint32_t draw(std::uint64_t round, std::uint64_t place) {
  std::uint64_t x = (round << 20) + place;
  x = (x ^ (x >> 31)) * 0x7fb5d329728ea185U;
  x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44dU;
  return static_cast<std::uint32_t>(x >> 33);
}

struct RoundShape {
  int num_ranks = 0;
  int max_tokens = 4;
  int hidden = 128;
  int num_workers = 0;  // of each call

  static constexpr int kTopk = 3;
  static constexpr int kExpertsPerRank = 2;

  int num_experts() const { return num_ranks * kExpertsPerRank; }
};

// What one rank sends, which every rank can work out. Small integers and weights that are halves:
// bfloat16 holds every sum.
struct RoundPart {
  int num_tokens;
  std::vector<std::uint16_t> x;         // bfloat16 [T, H]; words of four channels differ
  std::vector<std::int64_t> topk_idx;   // [T, K]
  std::vector<float> topk_weights;      // [T, K]
  std::vector<std::uint16_t> expected;  // bfloat16 [T, H]: what experts that change nothing give

  RoundPart(const RoundShape& shape, std::uint64_t number, int rank)
      : num_tokens(static_cast<int>(draw(number, static_cast<std::uint64_t>(rank)) %
                                    static_cast<std::uint32_t>(shape.max_tokens + 1))) {
    for (int token = 0; token < num_tokens; ++token) {
      const auto place = static_cast<std::uint64_t>(100 + (rank * shape.max_tokens + token) * 8);
      const float sum = choose_experts(shape, number, place);
      const std::uint32_t first = draw(number, place);
      for (int i = 0; i < shape.hidden; ++i) {
        const auto value = static_cast<float>(1 + (first + static_cast<std::uint32_t>(i / 4)) % 7);
        x.push_back(bfloat16_of(value));
        expected.push_back(bfloat16_of(value * sum));
      }
    }
  }

 private:
  // Of one token. Returns the sum of the weights.
  float choose_experts(const RoundShape& shape, std::uint64_t number, std::uint64_t place) {
    const auto first = static_cast<int>(draw(number, place + 1) % 64);
    float sum = 0.0F;
    for (int k = 0; k < RoundShape::kTopk; ++k) {
      const bool selected = draw(number, place + 2 + static_cast<std::uint64_t>(k)) % 6 != 0;
      const float weight = 0.5F * static_cast<float>(k + 1);
      topk_idx.push_back(selected ? (first + k) % shape.num_experts() : kNoExpert);
      topk_weights.push_back(weight);
      if (selected) sum += weight;
    }
    return sum;
  }
  static std::uint16_t bfloat16_of(float value) {
    return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  }
};

// One rank's side of a round.
class LowLatencyRound {
 public:
  LowLatencyRound(const BufferRank& rank, const RoundShape& shape, std::uint64_t number)
      : shape_(shape),
        number_(number),
        part_(shape, number, rank.rank()),
        x_(rank.put(part_.x.data(), DType::kBFloat16, {part_.num_tokens, shape.hidden})),
        topk_idx_(
            rank.put(part_.topk_idx.data(), DType::kInt64, {part_.num_tokens, RoundShape::kTopk})),
        topk_weights_(rank.put(part_.topk_weights.data(), DType::kFloat32,
                               {part_.num_tokens, RoundShape::kTopk})) {}

  LowLatencyDispatchConfig dispatch(ReceivePhase phase) const {
    LowLatencyDispatchConfig config;
    config.x = x_.view;
    config.topk_idx = topk_idx_.view;
    config.topk_weights = topk_weights_.view;
    config.num_max_tokens_per_rank = shape_.max_tokens;
    config.num_experts = shape_.num_experts();
    config.receive = phase;
    config.stream.num_workers = shape_.num_workers;
    return config;
  }
  LowLatencyCombineConfig combine(const LowLatencyDispatchResult& received,
                                  CombineNumerics numerics, ReceivePhase phase) const {
    LowLatencyCombineConfig config;
    config.x = received.recv_x.view;
    config.topk_idx = topk_idx_.view;
    config.topk_weights = topk_weights_.view;
    config.handle = received.handle;
    config.numerics = numerics;
    config.receive = phase;
    config.stream.num_workers = shape_.num_workers;
    return config;
  }

  void check_counts(const BufferRank& rank, const LowLatencyDispatchResult& received) const {
    std::vector<std::int32_t> counts(RoundShape::kExpertsPerRank);
    const Bytes seen =
        rank.bytes_of("recv_count", received.recv_count, DType::kInt32, {std::ssize(counts)});
    for (int source = 0; source < shape_.num_ranks; ++source) {
      for (const std::int64_t expert : RoundPart(shape_, number_, source).topk_idx) {
        if (expert == kNoExpert || expert / RoundShape::kExpertsPerRank != rank.rank()) continue;
        ++counts[static_cast<std::size_t>(expert % RoundShape::kExpertsPerRank)];
      }
    }
    require(std::memcmp(seen.data(), counts.data(), seen.size()) == 0,
            "round {}: the counts of received rows are wrong", number_);
  }
  void check_sums(const BufferRank& rank, const LowLatencyCombineResult& result) const {
    const Bytes seen = rank.bytes_of("combined_x", result.combined_x, DType::kBFloat16,
                                     {part_.num_tokens, shape_.hidden});
    for (std::size_t i = 0; i < part_.expected.size(); ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, &seen[2 * i], sizeof(bits));
      const auto hidden = static_cast<std::size_t>(shape_.hidden);
      require(bits == part_.expected[i],
              "round {}: token {}, channel {} is {:#x}, expected {:#x} (bfloat16)", number_,
              i / hidden, i % hidden, bits, part_.expected[i]);
    }
  }

 private:
  RoundShape shape_;
  std::uint64_t number_;
  RoundPart part_;
  Tensor x_;
  Tensor topk_idx_;
  Tensor topk_weights_;
};

template <class Result>
void receive_all(const std::vector<Result>& results) {
  for (const Result& result : results) {
    if (result.hook) result.hook();
  }
}

// Rounds `number` and the next. In every second pair both dispatches, and both combines, are sent
// before either is received; numerics are drawn.
inline void run_pair_of_rounds(BufferRank& rank, const RoundShape& shape, std::uint64_t number) {
  const LowLatencyRound rounds[] = {{rank, shape, number}, {rank, shape, number + 1}};
  const auto phase = number % 4 == 0 ? ReceivePhase::kByHook : ReceivePhase::kInCall;
  const auto numerics =
      draw(number, 7) % 2 == 0 ? CombineNumerics::kExact : CombineNumerics::kPreReduced;
  std::vector<LowLatencyDispatchResult> received;
  for (const LowLatencyRound& round : rounds) {
    received.push_back(rank.buffer.low_latency_dispatch(round.dispatch(phase)));
  }
  receive_all(received);
  std::vector<LowLatencyCombineResult> combined;
  for (std::size_t i = 0; i < received.size(); ++i) {
    combined.push_back(
        rank.buffer.low_latency_combine(rounds[i].combine(received[i], numerics, phase)));
  }
  receive_all(combined);
  for (std::size_t i = 0; i < received.size(); ++i) {
    rounds[i].check_counts(rank, received[i]);
    rounds[i].check_sums(rank, combined[i]);
  }
}

}  // namespace moelink::test
