// The handle of one dispatch: where every token went and every row came from.
#pragma once

#include <cstdint>
#include <memory>

#include "moelink/config.hpp"
#include "moelink/types.hpp"

namespace moelink {

struct RoutingState;

// Immutable once the dispatch that made it is complete. Belongs to the buffer that made it, and may
// be used any number of times for combines and cached dispatches on it.
class Routing {
 public:
  explicit Routing(std::shared_ptr<RoutingState> state);

  std::int64_t num_tokens() const;       // T
  std::int64_t num_recv_tokens() const;  // N: rows filled (compact: distinct (token, rank) pairs)
  std::int64_t num_recv_rows() const;    // rows of the receive tensors (padding and tails included)
  int num_topk() const;                  // K; 0 when routed by is_token_in_rank alone
  int num_experts() const;
  int expert_alignment() const;
  Layout layout() const;

  Tensor is_token_in_rank() const;    // bool [T, R]
  Tensor recv_src_token() const;      // int32 [N]: token index at its source rank, compact order
  Tensor rank_prefix_matrix() const;  // int32 [R, R]: [i][j] = tokens sent to rank j by ranks 0..i
  Tensor recv_tokens_per_expert() const;  // int32 [L]: selections received, unaligned
  // int32 [N, K]: row of selection k of compact row n, -1 if not local. Expert-major layout only.
  Tensor recv_expert_row() const;

  RoutingState& state() const { return *state_; }

 private:
  std::shared_ptr<RoutingState> state_;
};

}  // namespace moelink
