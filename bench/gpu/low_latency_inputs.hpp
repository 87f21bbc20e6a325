// Inputs of the low latency benchmark that every rank can recompute, and what follows from them.
#pragma once

#include <cstdint>
#include <vector>

#include "moelink/moelink.hpp"

namespace moelink::bench {

struct LowLatencyCase {
  std::int64_t tokens = 128;  // of every rank, and its slots
  std::int64_t hidden = 7168;
  int num_topk = 8;
  int num_experts = 288;
  bool is_fp8 = true;  // with float32 scales
  LowLatencyLayout layout = LowLatencyLayout::kPerExpert;
  CombineNumerics numerics = CombineNumerics::kExact;
  int sms = 0;  // 0: the buffer's choice

  bool is_per_expert() const { return layout == LowLatencyLayout::kPerExpert; }
};

// Experts of all tokens of a rank: [T, K], distinct per token.
std::vector<std::int64_t> experts_of_rank(const LowLatencyCase& one, int rank);

// bfloat16 rows [T, H] of a rank: small whole numbers, whose sums below are exact.
std::vector<std::uint16_t> rows_of_rank(const LowLatencyCase& one, int rank);

// Expert e returns its input times this, and every selection has the same weight.
float factor_of_expert(std::int64_t expert);
inline constexpr float kWeight = 0.5F;

// The sum of weight times factor over the experts of a token in [begin, end).
float factor_of_token(const LowLatencyCase& one, const std::int64_t* experts, std::int64_t begin,
                      std::int64_t end);

float float_of(std::uint16_t bfloat16);
// Exact for numbers of at most 8 significant bits.
std::uint16_t bfloat16_of(float value);

// Where a row of a group (local expert or source rank) comes from.
struct RowOrigin {
  int source = 0;
  std::int64_t token = 0;
};

// Rows in use that a rank receives, group by group, in the order of the layout.
std::vector<std::vector<RowOrigin>> received_rows(const LowLatencyCase& one, int rank,
                                                  int num_ranks);

}  // namespace moelink::bench
