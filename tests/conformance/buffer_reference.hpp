// Plain reference of dispatch and combine over all ranks at once, in terms of sorted lists.
#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

#include "backend/simd_reference.hpp"
#include "moelink/config.hpp"
#include "moelink/topology.hpp"

namespace moelink::test {

using Bytes = std::vector<std::byte>;

// What one rank passes to dispatch.
struct Sent {
  std::int64_t num_tokens = 0;
  Bytes payload;                   // [T, row_bytes]
  Bytes scales;                    // [T, scale_bytes]
  std::vector<std::int64_t> ids;   // [T, K]
  std::vector<float> weights;      // [T, K], or empty
  std::vector<std::uint8_t> mask;  // [T, R], or empty
};

struct Problem {
  Topology topology;
  int experts_per_rank = 1;
  int num_topk = 0;
  Layout layout = Layout::kCompact;
  std::int64_t alignment = 1;
  std::size_t row_bytes = 0;
  std::size_t scale_bytes = 0;
  std::vector<Sent> sent;  // by rank

  int num_ranks() const { return topology.num_ranks; }
  int num_experts() const { return experts_per_rank * num_ranks(); }
  const Sent& of(int rank) const { return sent[static_cast<std::size_t>(rank)]; }

  std::int64_t id(int source, std::int64_t token, int k) const {
    return of(source).ids[static_cast<std::size_t>(token * num_topk + k)];
  }
  bool selects(int source, std::int64_t token, int k, int rank) const {
    const std::int64_t chosen = id(source, token, k);
    return chosen >= 0 && chosen / experts_per_rank == rank && mask_allows(source, token, rank);
  }
  bool is_sent(int source, std::int64_t token, int rank) const {
    if (!of(source).mask.empty()) return mask_allows(source, token, rank);
    for (int k = 0; k < num_topk; ++k) {
      if (selects(source, token, k, rank)) return true;
    }
    return false;
  }

 private:
  bool mask_allows(int source, std::int64_t token, int rank) const {
    const std::vector<std::uint8_t>& mask = of(source).mask;
    return mask.empty() || mask[static_cast<std::size_t>(token * num_ranks() + rank)] != 0;
  }
};

// Where a received row comes from. Rows of the compact layout have k = 0, padding has source = -1.
struct Origin {
  int source = -1;
  std::int64_t token = 0;
  int k = 0;

  friend auto operator<=>(const Origin&, const Origin&) = default;
};

// The rows of one receiving rank, in order.
struct ReceivedRows {
  std::vector<Origin> tokens;               // distinct (source, token) pairs
  std::vector<Origin> rows;                 // of the receive tensors: tokens, or expert-major
  std::vector<std::int32_t> per_expert;     // selections of each local expert
  std::map<Origin, std::int64_t> position;  // of each origin in `rows`
};

inline void append_expert_rows(const Problem& problem, int rank, ReceivedRows& received) {
  const std::int64_t first = std::int64_t{rank} * problem.experts_per_rank;
  for (std::int64_t expert = first; expert < first + problem.experts_per_rank; ++expert) {
    std::int32_t count = 0;
    for (const Origin& origin : received.tokens) {
      for (int k = 0; k < problem.num_topk; ++k) {
        if (!problem.selects(origin.source, origin.token, k, rank)) continue;
        if (problem.id(origin.source, origin.token, k) != expert) continue;
        received.rows.push_back({origin.source, origin.token, k});
        ++count;
      }
    }
    const auto alignment = static_cast<std::size_t>(problem.alignment);
    while (received.rows.size() % alignment != 0) received.rows.push_back(Origin{});
    received.per_expert.push_back(count);
  }
}

inline ReceivedRows received_rows(const Problem& problem, int rank) {
  ReceivedRows received;
  for (int source = 0; source < problem.num_ranks(); ++source) {
    for (std::int64_t token = 0; token < problem.of(source).num_tokens; ++token) {
      if (problem.is_sent(source, token, rank)) received.tokens.push_back({source, token, 0});
    }
  }
  append_expert_rows(problem, rank, received);
  if (problem.layout == Layout::kCompact) received.rows = received.tokens;
  for (std::size_t i = 0; i < received.rows.size(); ++i) {
    if (received.rows[i].source < 0) continue;
    received.position[received.rows[i]] = static_cast<std::int64_t>(i);
  }
  return received;
}

// The contents of the receive tensors; padding rows are zero.
inline Bytes gather_rows(const Problem& problem, const std::vector<Origin>& rows,
                         Bytes Sent::* tensor, std::size_t row_bytes) {
  Bytes gathered(rows.size() * row_bytes);
  for (std::size_t i = 0; i < rows.size() && row_bytes > 0; ++i) {
    if (rows[i].source < 0) continue;
    const Bytes& from = problem.of(rows[i].source).*tensor;
    std::memcpy(&gathered[i * row_bytes],
                &from[static_cast<std::size_t>(rows[i].token) * row_bytes], row_bytes);
  }
  return gathered;
}

inline float weight_of(const Problem& problem, const Origin& origin, int k) {
  const std::int64_t i = origin.token * problem.num_topk + k;
  return problem.of(origin.source).weights[static_cast<std::size_t>(i)];
}

// Compact: [rows, K], 0 where the selection is not here; expert-major: [rows], 0 in padding.
inline std::vector<float> received_weights(const Problem& problem, int rank,
                                           const std::vector<Origin>& rows) {
  std::vector<float> weights;
  for (const Origin& origin : rows) {
    if (problem.layout == Layout::kExpertMajor) {
      weights.push_back(origin.source < 0 ? 0.0F : weight_of(problem, origin, origin.k));
      continue;
    }
    for (int k = 0; k < problem.num_topk; ++k) {
      const bool here = problem.selects(origin.source, origin.token, k, rank);
      weights.push_back(here ? weight_of(problem, origin, k) : 0.0F);
    }
  }
  return weights;
}

// Compact: local expert ids [rows, K], -1 where the selection is not here.
inline std::vector<std::int64_t> received_ids(const Problem& problem, int rank,
                                              const std::vector<Origin>& rows) {
  std::vector<std::int64_t> ids;
  for (const Origin& origin : rows) {
    for (int k = 0; k < problem.num_topk; ++k) {
      const bool here = problem.selects(origin.source, origin.token, k, rank);
      const std::int64_t id = problem.id(origin.source, origin.token, k);
      ids.push_back(here ? id % problem.experts_per_rank : -1);
    }
  }
  return ids;
}

inline float load_element(const std::byte* row, DType dtype, std::size_t channel) {
  if (dtype != DType::kBFloat16) return simd_reference::load(row, dtype, channel);
  std::uint16_t code = 0;
  std::memcpy(&code, row + channel * sizeof(code), sizeof(code));
  return std::bit_cast<float>(std::uint32_t{code} << 16);
}

inline void store_element(std::byte* row, DType dtype, std::size_t channel, float value) {
  simd_reference::store(row, dtype, channel, value);
}

inline float round_element(DType dtype, float value) {
  return dtype == DType::kFloat32 ? value : simd_reference::round_to(dtype, value);
}

// What the ranks give to combine: any row of any rank can be made at once.
struct Returned {
  DType dtype = DType::kBFloat16;
  std::size_t num_channels = 0;
  std::function<void(int rank, std::int64_t row, std::byte* out)> fill_row;
  std::function<float(int rank, std::int64_t index)> weight;

  std::size_t row_bytes() const { return num_channels * dtype_size(dtype); }
  std::vector<float> row(int rank, std::int64_t index) const {
    Bytes bytes(row_bytes());
    fill_row(rank, index, bytes.data());
    std::vector<float> values;
    for (std::size_t i = 0; i < num_channels; ++i) {
      values.push_back(load_element(bytes.data(), dtype, i));
    }
    return values;
  }
};

// Combine at one rank, from its definition.
class ReferenceCombine {
 public:
  ReferenceCombine(const Problem& problem, const Returned& returned, int rank)
      : problem_(problem), returned_(returned), rank_(rank) {
    for (int peer = 0; peer < problem.num_ranks(); ++peer) {
      received_.push_back(received_rows(problem, peer));
    }
  }

  // `bias`: bias_0 + bias_1 of the token, or zeros. Returns the row, not yet rounded to the type.
  std::vector<float> token(std::int64_t token, std::vector<float> sum) const {
    const int per_node = problem_.topology.ranks_per_node();
    for (int node = 0; node < problem_.topology.num_nodes; ++node) {
      std::vector<float> of_node(returned_.num_channels);
      std::vector<float>& target = problem_.topology.num_nodes > 1 ? of_node : sum;
      for (int peer = node * per_node; peer < (node + 1) * per_node; ++peer) {
        if (problem_.is_sent(rank_, token, peer)) add(target, row_of_rank(token, peer));
      }
      if (problem_.topology.num_nodes == 1) continue;
      for (float& value : of_node) value = round_element(returned_.dtype, value);
      add(sum, of_node);
    }
    return sum;
  }

  float weight(std::int64_t token, int k) const {
    float sum = 0.0F;
    for (int peer = 0; peer < problem_.num_ranks(); ++peer) {
      if (problem_.layout == Layout::kExpertMajor) {
        if (!problem_.selects(rank_, token, k, peer)) continue;
        sum = returned_.weight(peer, position(peer, {rank_, token, k}));
      } else if (problem_.is_sent(rank_, token, peer)) {
        sum += returned_.weight(peer, position(peer, {rank_, token, 0}) * problem_.num_topk + k);
      }
    }
    return sum;
  }

 private:
  static void add(std::vector<float>& sum, const std::vector<float>& row) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += row[i];
  }

  std::int64_t position(int peer, const Origin& origin) const {
    return received_[static_cast<std::size_t>(peer)].position.at(origin);
  }

  std::vector<float> row_of_rank(std::int64_t token, int peer) const {
    if (problem_.layout == Layout::kCompact) {
      return returned_.row(peer, position(peer, {rank_, token, 0}));
    }
    std::vector<float> sum(returned_.num_channels);
    for (int k = 0; k < problem_.num_topk; ++k) {
      if (!problem_.selects(rank_, token, k, peer)) continue;
      add(sum, returned_.row(peer, position(peer, {rank_, token, k})));
    }
    for (float& value : sum) value = round_element(returned_.dtype, value);
    return sum;
  }

  const Problem& problem_;
  const Returned& returned_;
  int rank_;
  std::vector<ReceivedRows> received_;
};

}  // namespace moelink::test
