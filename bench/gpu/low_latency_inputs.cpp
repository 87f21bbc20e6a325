// Routing and rows from hashes of rank, token and position.
#include "low_latency_inputs.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

namespace moelink::bench {

std::vector<std::int64_t> experts_of_rank(const LowLatencyCase& one, int rank) {
  std::mt19937 random(static_cast<unsigned>(rank) + 1);
  std::vector<std::int64_t> all(static_cast<std::size_t>(one.num_experts));
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::int64_t> experts;
  for (std::int64_t token = 0; token < one.tokens; ++token) {
    for (std::size_t k = 0; k < static_cast<std::size_t>(one.num_topk); ++k) {
      std::swap(all[k], all[k + random() % (all.size() - k)]);
    }
    experts.insert(experts.end(), all.begin(), all.begin() + one.num_topk);
  }
  return experts;
}

std::vector<std::uint16_t> rows_of_rank(const LowLatencyCase& one, int rank) {
  constexpr std::uint16_t kWhole[4] = {0x3f80, 0x4000, 0x4040, 0xbf80};  // 1, 2, 3, -1
  std::vector<std::uint16_t> rows(static_cast<std::size_t>(one.tokens * one.hidden));
  std::uint64_t state = static_cast<std::uint64_t>(rank) + 1;
  for (std::uint16_t& value : rows) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    value = kWhole[state >> 62];
  }
  return rows;
}

float factor_of_expert(std::int64_t expert) {
  constexpr float kFactors[3] = {1, 2, -1};
  return kFactors[expert % 3];
}

float factor_of_token(const LowLatencyCase& one, const std::int64_t* experts, std::int64_t begin,
                      std::int64_t end) {
  float sum = 0;
  for (int k = 0; k < one.num_topk; ++k) {
    const bool is_inside = experts[k] >= begin && experts[k] < end;
    if (is_inside) sum += kWeight * factor_of_expert(experts[k]);
  }
  return sum;
}

float float_of(std::uint16_t bfloat16) {
  const std::uint32_t bits = static_cast<std::uint32_t>(bfloat16) << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::uint16_t bfloat16_of(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<std::uint16_t>(bits >> 16);
}

std::vector<std::vector<RowOrigin>> received_rows(const LowLatencyCase& one, int rank,
                                                  int num_ranks) {
  const std::int64_t num_local = one.num_experts / num_ranks;
  const std::int64_t begin = rank * num_local;
  const std::int64_t num_groups = one.is_per_expert() ? num_local : num_ranks;
  std::vector<std::vector<RowOrigin>> groups(static_cast<std::size_t>(num_groups));
  for (int source = 0; source < num_ranks; ++source) {
    const std::vector<std::int64_t> experts = experts_of_rank(one, source);
    for (std::int64_t token = 0; token < one.tokens; ++token) {
      const std::int64_t* const list = &experts[static_cast<std::size_t>(token * one.num_topk)];
      bool is_new = true;  // a per-rank row stands for all experts of the token here
      for (int k = 0; k < one.num_topk; ++k) {
        const std::int64_t local = list[k] - begin;
        if (local < 0 || local >= num_local || (!one.is_per_expert() && !is_new)) continue;
        is_new = false;
        const std::int64_t group = one.is_per_expert() ? local : source;
        groups[static_cast<std::size_t>(group)].push_back({source, token});
      }
    }
  }
  return groups;
}

}  // namespace moelink::bench
