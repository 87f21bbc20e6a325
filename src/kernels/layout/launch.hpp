// Destinations and counts that follow from a top-k list; local to one rank.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/dispatch/params.hpp"
#include "moelink/topology.hpp"

namespace moelink::kernels {

struct LayoutParams {
  TopkSource topk;
  Topology topology;
  std::int64_t num_tokens = 0;
  int num_experts = 0;
  std::int32_t* tokens_per_rank = nullptr;    // [R], zero before
  std::int32_t* tokens_per_node = nullptr;    // [nodes], zero before
  std::int32_t* tokens_per_expert = nullptr;  // [E], zero before
  std::uint8_t* is_token_in_rank = nullptr;   // [T, R]
};

void load_layout_kernel();
void launch_layout(const LayoutParams& params, int num_blocks, cudaStream_t stream);

}  // namespace moelink::kernels
