// Accessors of a handle.
#include "moelink/routing.hpp"

#include <utility>

#include "backend/routing_state.hpp"

namespace moelink {

namespace {

// After it the host knows what has been received.
const RoutingState& settled(RoutingState& state) {
  if (state.settle) {
    state.settle();  // stays if it throws: later calls must not take unknown counts for none
    state.settle = nullptr;
  }
  return state;
}

}  // namespace

Routing::Routing(std::shared_ptr<RoutingState> state) : state_(std::move(state)) {}

std::int64_t Routing::num_tokens() const { return state_->num_tokens; }
std::int64_t Routing::num_recv_tokens() const { return settled(*state_).num_recv_tokens; }
std::int64_t Routing::num_recv_rows() const {
  return state_->max_rows > 0 ? state_->max_rows : state_->num_recv_rows;
}
int Routing::num_topk() const { return state_->num_topk; }
int Routing::num_experts() const { return state_->num_experts; }
int Routing::expert_alignment() const { return static_cast<int>(state_->expert_alignment); }
Layout Routing::layout() const { return state_->layout; }
Tensor Routing::is_token_in_rank() const { return state_->is_token_in_rank; }
Tensor Routing::recv_src_token() const { return settled(*state_).recv_src_token; }
Tensor Routing::rank_prefix_matrix() const { return state_->rank_prefix_matrix; }
Tensor Routing::recv_tokens_per_expert() const { return state_->recv_tokens_per_expert; }
Tensor Routing::recv_expert_row() const { return settled(*state_).recv_expert_row; }

}  // namespace moelink
