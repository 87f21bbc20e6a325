// What a handle remembers of its dispatch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "moelink/config.hpp"
#include "moelink/types.hpp"
#include "protocol/counts.hpp"
#include "protocol/expert_map.hpp"

namespace moelink {

class Routing;
struct CudaRouting;  // backend/cuda/cuda_routing.hpp

// Where tokens of one rank go: their rows at all ranks.
struct Placement {
  const std::int32_t* send_row = nullptr;    // [tokens, R]
  const std::int32_t* topk_owner = nullptr;  // [tokens, K]
  const std::int32_t* expert_row = nullptr;  // [tokens, K], expert-major only
  int num_ranks = 0;
  int num_topk = 0;

  std::int32_t row_at(std::int64_t token, Rank rank) const {
    return send_row[token * num_ranks + rank.value()];
  }
  std::int32_t owner_of(std::int64_t token, int k) const {
    return topk_owner[token * num_topk + k];
  }
  std::int32_t expert_row_of(std::int64_t token, int k) const {
    return expert_row[token * num_topk + k];
  }
};

// Tokens of a rank of another node that this rank forwards, in the order of their numbers. The rows
// at ranks outside this rank's group are kNoRow.
struct RelayedTokens {
  std::vector<std::int32_t> tokens;  // their numbers at their source
  std::vector<std::int32_t> send_row;
  std::vector<std::int32_t> topk_owner;
  std::vector<std::int32_t> expert_row;

  // Of the tokens from the given one on.
  Placement placement(std::size_t first, int num_ranks, int num_topk) const {
    const std::size_t selection = first * static_cast<std::size_t>(num_topk);
    return {send_row.data() + first * static_cast<std::size_t>(num_ranks),
            topk_owner.data() + selection,
            expert_row.empty() ? nullptr : &expert_row[0] + selection, num_ranks, num_topk};
  }
};

// Filled by the dispatch that makes it, constant once that is complete.
struct RoutingState {
  std::uint64_t owner = 0;  // id of the buffer that made it
  Epoch epoch;              // of its dispatch
  int num_ranks = 0;
  int num_experts = 0;
  int num_topk = 0;
  Layout layout = Layout::kCompact;
  Padding padding = Padding::kZero;
  std::int64_t expert_alignment = 1;

  std::int64_t num_tokens = 0;       // T here
  std::int64_t num_recv_tokens = 0;  // distinct (token, rank) pairs received
  std::int64_t num_recv_rows = 0;    // rows of the receive tensors
  std::int64_t max_rows = 0;         // num_worst_tokens; 0: exact sizes

  std::vector<std::int64_t> tokens_of_rank;    // [R]: T of every rank
  std::vector<std::int64_t> max_rows_of_rank;  // [R]: max_rows of every rank
  std::vector<std::int32_t> counts;            // see CountMatrix

  Tensor is_token_in_rank;        // bool [T, R]
  Tensor rank_prefix_matrix;      // int32 [R, R]
  Tensor recv_tokens_per_expert;  // int32 [L]
  Tensor recv_src_token;          // int32 [N]
  Tensor recv_expert_row;         // int32 [N, K], expert-major only

  std::vector<std::int32_t> send_row;  // [T, R]: compact row at each rank, kNoRow if not sent
  std::vector<std::int32_t>
      topk_owner;  // [T, K]: rank of each selection that was sent, -1 otherwise
  std::vector<std::int32_t> expert_row;  // [T, K]: row at that rank, expert-major only

  // With a network between nodes, by source rank: empty unless this rank carries its tokens.
  std::vector<RelayedTokens> relayed;

  // Of a buffer of GPUs that uses the CPU backend: the handle that this knows.
  std::shared_ptr<const Routing> on_host;

  std::shared_ptr<CudaRouting> cuda;  // the CUDA backend's: the lists above are empty then
  // Set while the host does not know yet what has been received: waits for the dispatch, and fills
  // in num_recv_tokens, recv_src_token and recv_expert_row.
  std::function<void()> settle;

  // Of this rank's tokens.
  Placement placement() const {
    return {send_row.data(), topk_owner.data(), expert_row.data(), num_ranks, num_topk};
  }
  CountMatrix count_matrix() const { return CountMatrix{counts.data(), num_ranks, num_experts}; }
  ExpertMap expert_map() const { return ExpertMap::make(num_experts, num_ranks); }
};

}  // namespace moelink
