// Lays out a handle in one block of the arena.
#include "backend/cuda/cuda_routing.hpp"

#include "base/cuda/check.hpp"
#include "protocol/counts.hpp"
#include "protocol/limits.hpp"

namespace moelink {
namespace {

class RoutingLayout {
 public:
  // Reserves room for `count` elements and returns its offset.
  template <class T>
  std::size_t add(std::int64_t count) {
    const std::size_t offset = bytes_;
    bytes_ += align_up(static_cast<std::size_t>(count) * sizeof(T), kPartAlignment);
    return offset;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

}  // namespace

std::shared_ptr<CudaRouting> make_cuda_routing(const CudaContext& context, RoutingState& state) {
  const std::int64_t ranks = state.num_ranks;
  const std::int64_t tokens = state.num_tokens;
  const std::int64_t selections = tokens * state.num_topk;
  const std::int64_t local = state.num_topk > 0 ? state.num_experts / state.num_ranks : 0;
  RoutingLayout layout;
  const std::size_t counts =
      layout.add<std::int32_t>(ranks * static_cast<std::int64_t>(CountMatrix::row_length(
                                           state.num_ranks, state.num_experts)));
  const std::size_t send_row = layout.add<std::int32_t>(tokens * ranks);
  const std::size_t owners = layout.add<std::int32_t>(selections);
  const bool expert_major = state.layout == moelink::Layout::kExpertMajor;
  const std::size_t expert_row = layout.add<std::int32_t>(expert_major ? selections : 0);
  const std::size_t in_rank = layout.add<std::uint8_t>(tokens * ranks);
  const std::size_t prefix = layout.add<std::int32_t>(ranks * ranks);
  const std::size_t per_expert = layout.add<std::int32_t>(local);
  const std::size_t max_rows = layout.add<std::int64_t>(ranks);

  auto routing = std::make_shared<CudaRouting>();
  routing->owner = context.allocate(layout.bytes());
  auto* const base = static_cast<std::byte*>(routing->owner.get());
  routing->memory.counts = reinterpret_cast<std::int32_t*>(base + counts);
  routing->memory.send_row = reinterpret_cast<std::int32_t*>(base + send_row);
  routing->memory.topk_owner = reinterpret_cast<std::int32_t*>(base + owners);
  routing->memory.expert_row = reinterpret_cast<std::int32_t*>(base + expert_row);
  routing->memory.is_token_in_rank = reinterpret_cast<std::uint8_t*>(base + in_rank);
  routing->memory.rank_prefix_matrix = reinterpret_cast<std::int32_t*>(base + prefix);
  routing->memory.recv_tokens_per_expert = reinterpret_cast<std::int32_t*>(base + per_expert);
  routing->memory.max_rows_of_rank = reinterpret_cast<std::int64_t*>(base + max_rows);
  const auto tensor = [&](void* data, DType dtype, std::initializer_list<std::int64_t> shape) {
    return Tensor{TensorView::contiguous(data, dtype, shape), routing->owner};
  };
  state.is_token_in_rank = tensor(base + in_rank, DType::kBool, {tokens, ranks});
  state.rank_prefix_matrix = tensor(base + prefix, DType::kInt32, {ranks, ranks});
  state.recv_tokens_per_expert = tensor(base + per_expert, DType::kInt32, {local});
  return routing;
}

void settle_routing(const CudaRouting& routing, RoutingState& state, Rank rank) {
  const std::size_t length = CountMatrix::row_length(state.num_ranks, state.num_experts) *
                             static_cast<std::size_t>(state.num_ranks);
  state.counts.resize(length);
  check_cuda(
      cudaMemcpyAsync(state.counts.data(), routing.memory.counts, length * sizeof(std::int32_t),
                      cudaMemcpyDeviceToHost, cudaStreamPerThread),
      "read the counts of a dispatch");
  check_cuda(cudaStreamSynchronize(cudaStreamPerThread), "read the counts of a dispatch");
  state.num_recv_tokens = state.count_matrix().num_tokens(rank);
}

}  // namespace moelink
