// Random inputs for dispatch and combine, the same at every rank that makes them from the same
// case.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "conformance/buffer_reference.hpp"

namespace moelink::test {

// A small generator that gives the same numbers everywhere (splitmix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  Random(std::uint64_t seed, std::uint64_t salt) : state_(seed * 0x9e3779b97f4a7c15 + salt) {
    state_ = next();
  }

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    std::uint64_t value = state_;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }
  int below(int limit) { return static_cast<int>(next() % static_cast<std::uint64_t>(limit)); }

 private:
  std::uint64_t state_;
};

enum class Pattern {
  kRandom,      // any experts, some -1, duplicates possible
  kAllToOne,    // every selection is an expert of the last rank
  kOneToAll,    // only rank 0 has tokens; each goes to several ranks
  kDuplicates,  // each token selects the same expert K times
  kNothing,     // every selection is -1
};
enum class ScaleKind { kNone, kFloat32, kPackedInt32, kColumnMajor, kBytes };
enum class MaskKind { kNone, kWithTopk, kAlone };
enum class WeightKind { kGiven, kAbsent };

// Nodes that topologies of one node are spread over; 1: they stay as they are. Set by the suite.
inline int wanted_nodes = 1;

inline Topology spread(Topology topology) {
  if (topology.num_nodes > 1 || wanted_nodes == 1) return topology;
  const bool divides = topology.num_ranks % wanted_nodes == 0;
  topology.num_nodes = divides ? wanted_nodes : topology.num_ranks;
  return topology;
}

struct BufferCase {
  Topology topology{4, 1};
  int experts_per_rank = 3;
  int num_topk = 4;
  std::vector<std::int64_t> num_tokens = {13};  // by rank, repeated as often as needed
  Pattern pattern = Pattern::kRandom;
  Layout layout = Layout::kCompact;
  std::int64_t alignment = 1;
  DType dtype = DType::kBFloat16;
  std::int64_t num_channels = 64;
  ScaleKind scales = ScaleKind::kNone;
  DType index_dtype = DType::kInt64;
  WeightKind weights = WeightKind::kGiven;
  MaskKind mask = MaskKind::kNone;
  std::uint64_t seed = 1;
};

// An odd multiple of a power of two: exact in every type, never zero, and sums of several round.
inline float random_number(Random& random) {
  constexpr float kScales[] = {0.03125F, 0.0625F, 0.125F, 0.25F, 0.5F, 1.0F, 2.0F, 4.0F};
  const std::uint64_t bits = random.next();
  const auto odd = static_cast<float>(static_cast<int>(bits % 254) - 127) + 0.5F;
  return odd * kScales[(bits >> 40) % std::size(kScales)];
}

inline void fill_numbers(std::byte* out, DType dtype, std::size_t count, Random random) {
  for (std::size_t i = 0; i < count; ++i) {
    const float value = random_number(random);
    if (dtype != DType::kBFloat16) {
      store_element(out, dtype, i, value);
      continue;
    }
    const auto code = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    std::memcpy(out + i * sizeof(code), &code, sizeof(code));
  }
}

inline Bytes random_bytes(std::size_t count, Random random) {
  Bytes bytes(count);
  for (std::size_t i = 0; i < count; i += sizeof(std::uint64_t)) {
    const std::uint64_t bits = random.next();
    std::memcpy(&bytes[i], &bits, std::min(sizeof(bits), count - i));
  }
  return bytes;
}

inline std::int64_t random_id(const BufferCase& one, std::int64_t token, int k, Random& random) {
  const int num_ranks = one.topology.num_ranks;
  const int expert = random.below(one.experts_per_rank);
  const int first_of_last = (num_ranks - 1) * one.experts_per_rank;
  switch (one.pattern) {
    case Pattern::kRandom:
      return random.below(8) == 0 ? -1 : random.below(num_ranks * one.experts_per_rank);
    case Pattern::kAllToOne:
      return first_of_last + expert;
    case Pattern::kOneToAll:
      return (token + k) % num_ranks * one.experts_per_rank + expert;
    case Pattern::kDuplicates:
      return token % (num_ranks * one.experts_per_rank);
    case Pattern::kNothing:
      return -1;
  }
  return -1;
}

inline std::size_t scales_per_row(const BufferCase& one) {
  if (one.scales == ScaleKind::kNone) return 0;
  const auto blocks = static_cast<std::size_t>((one.num_channels + 127) / 128);
  return one.scales == ScaleKind::kPackedInt32 ? (blocks + 3) / 4 : blocks;
}

inline DType scale_dtype(ScaleKind kind) {
  if (kind == ScaleKind::kBytes) return DType::kFloat8UE8M0;
  return kind == ScaleKind::kPackedInt32 ? DType::kInt32 : DType::kFloat32;
}

// Each tensor has a generator of its own, so that leaving one out does not change the others.
inline Sent make_sent(const BufferCase& one, const Problem& problem, int rank) {
  const auto generator = [&](std::uint64_t tensor) {
    return Random(one.seed, static_cast<std::uint64_t>(rank) * 8 + tensor);
  };
  Random ids = generator(0);
  Random weights = generator(1);
  Random mask = generator(2);
  Sent sent;
  sent.num_tokens = one.num_tokens[static_cast<std::size_t>(rank) % one.num_tokens.size()];
  if (one.pattern == Pattern::kOneToAll && rank != 0) sent.num_tokens = 0;
  const auto num_tokens = static_cast<std::size_t>(sent.num_tokens);
  sent.payload = random_bytes(num_tokens * problem.row_bytes, generator(3));
  sent.scales = random_bytes(num_tokens * problem.scale_bytes, generator(4));
  for (std::int64_t token = 0; token < sent.num_tokens; ++token) {
    for (int k = 0; k < problem.num_topk; ++k) {
      sent.ids.push_back(random_id(one, token, k, ids));
      if (one.weights == WeightKind::kGiven) sent.weights.push_back(random_number(weights));
    }
    for (int peer = 0; peer < one.topology.num_ranks && one.mask != MaskKind::kNone; ++peer) {
      sent.mask.push_back(static_cast<std::uint8_t>(mask.below(2)));
    }
  }
  return sent;
}

inline Problem make_problem(const BufferCase& one) {
  Problem problem;
  problem.topology = spread(one.topology);
  problem.experts_per_rank = one.experts_per_rank;
  problem.num_topk = one.mask == MaskKind::kAlone ? 0 : one.num_topk;
  problem.layout = one.layout;
  problem.alignment = one.alignment;
  problem.row_bytes = static_cast<std::size_t>(one.num_channels) * dtype_size(one.dtype);
  problem.scale_bytes = scales_per_row(one) * dtype_size(scale_dtype(one.scales));
  for (int rank = 0; rank < one.topology.num_ranks; ++rank) {
    problem.sent.push_back(make_sent(one, problem, rank));
  }
  return problem;
}

// What experts might return: any rows at all, made from rank and row alone.
inline Returned make_returned(DType dtype, std::int64_t num_channels, std::uint64_t seed) {
  Returned returned;
  returned.dtype = dtype;
  returned.num_channels = static_cast<std::size_t>(num_channels);
  const auto salt = [](int rank, std::int64_t index) {
    return static_cast<std::uint64_t>(rank) << 40 | static_cast<std::uint64_t>(index);
  };
  returned.fill_row = [=](int rank, std::int64_t row, std::byte* out) {
    fill_numbers(out, dtype, static_cast<std::size_t>(num_channels), Random(seed, salt(rank, row)));
  };
  returned.weight = [=](int rank, std::int64_t index) {
    Random random(seed + 1, salt(rank, index));
    return random_number(random);
  };
  return returned;
}

}  // namespace moelink::test
