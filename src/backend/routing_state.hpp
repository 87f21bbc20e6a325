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

struct CudaRouting;  // backend/cuda/cuda_routing.hpp

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

  std::shared_ptr<CudaRouting> cuda;  // the CUDA backend's: the lists above are empty then
  // Set while the host does not know yet what has been received: waits for the dispatch, and fills
  // in num_recv_tokens, recv_src_token and recv_expert_row.
  std::function<void()> settle;

  CountMatrix count_matrix() const { return CountMatrix{counts.data(), num_ranks, num_experts}; }
  ExpertMap expert_map() const { return ExpertMap::make(num_experts, num_ranks); }
};

}  // namespace moelink
