// Entry of the layout kernel: a thread counts for one token at a time.
#include "kernels/launch_check.hpp"
#include "kernels/layout/launch.hpp"
#include "protocol/expert_map.hpp"

namespace moelink::kernels {
namespace {

constexpr int kNumThreads = 256;

__device__ bool goes_to(const LayoutParams& params, const ExpertMap& map, std::int64_t token,
                        Rank rank) {
  for (int k = 0; k < params.topk.num_topk; ++k) {
    const std::int64_t id = params.topk.id(token * params.topk.num_topk + k);
    if (id >= 0 && id < map.num_experts &&
        map.owner(Expert(static_cast<std::int32_t>(id))) == rank) {
      return true;
    }
  }
  return false;
}

__device__ void count_experts(const LayoutParams& params, const ExpertMap& map,
                              std::int64_t token) {
  for (int k = 0; k < params.topk.num_topk; ++k) {
    const std::int64_t id = params.topk.id(token * params.topk.num_topk + k);
    if (id != kNoExpert && map.is_valid(id)) atomicAdd(&params.tokens_per_expert[id], 1);
  }
}

__device__ void count_ranks(const LayoutParams& params, const ExpertMap& map, std::int64_t token) {
  const Topology& topology = params.topology;
  for (Node node(0); node.value() < topology.num_nodes; node = node.next()) {
    bool in_node = false;
    for (LocalRank local(0); local.value() < topology.ranks_per_node(); local = local.next()) {
      const Rank rank = topology.rank_at(node, local);
      const bool sent = goes_to(params, map, token, rank);
      params.is_token_in_rank[token * topology.num_ranks + rank.value()] = sent ? 1 : 0;
      if (sent) atomicAdd(&params.tokens_per_rank[rank.index()], 1);
      in_node = in_node || sent;
    }
    if (in_node) atomicAdd(&params.tokens_per_node[node.index()], 1);
  }
}

__global__ __launch_bounds__(kNumThreads,
                             4) void layout_kernel(const __grid_constant__ LayoutParams params) {
  const ExpertMap map = ExpertMap::make(params.num_experts, params.topology.num_ranks);
  for (std::int64_t token = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       token < params.num_tokens; token += std::int64_t{gridDim.x} * blockDim.x) {
    count_experts(params, map, token);
    count_ranks(params, map, token);
  }
}

}  // namespace

void load_layout_kernel() { allow_shared_memory(layout_kernel); }

void launch_layout(const LayoutParams& params, int num_blocks, cudaStream_t stream) {
  layout_kernel<<<num_blocks, kNumThreads, 0, stream>>>(params);
  check_launch("launch the counting of a layout");
}

}  // namespace moelink::kernels
