// Arguments of the dispatch kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/domain.hpp"
#include "kernels/exchange/report.hpp"
#include "moelink/config.hpp"
#include "moelink/types.hpp"
#include "protocol/control_layout.hpp"
#include "protocol/counts.hpp"
#include "protocol/receive_layout.hpp"

namespace moelink::kernels {

// The routing of one dispatch in device memory: written by a first dispatch, read by cached ones
// and by combine. Sizes as in backend/routing_state.hpp.
struct RoutingMemory {
  std::int32_t* counts = nullptr;                  // [R, R + E], see CountMatrix
  std::int32_t* send_row = nullptr;                // [T, R]
  std::int32_t* topk_owner = nullptr;              // [T, K]
  std::int32_t* expert_row = nullptr;              // [T, K], expert-major only
  std::uint8_t* is_token_in_rank = nullptr;        // [T, R]
  std::int32_t* rank_prefix_matrix = nullptr;      // [R, R]
  std::int32_t* recv_tokens_per_expert = nullptr;  // [L]
  std::int64_t* max_rows_of_rank = nullptr;        // [R]
};

// What arrived: device addresses of the own receive block's parts.
struct ReceivedMemory {
  const std::int32_t* source_token = nullptr;  // [N]
  const std::int32_t* expert_row = nullptr;    // [N, K], expert-major only
};

// A strided 2-D tensor of opaque elements.
struct StridedSource {
  const std::byte* data = nullptr;
  std::int64_t row_stride_bytes = 0;
  std::int64_t column_stride_bytes = 0;
  std::int32_t num_columns = 0;
  std::int32_t element_bytes = 0;  // 1 or 4
};

// The top-k list of a call; null ids: cached, or routed by a mask alone.
struct TopkSource {
  const void* ids = nullptr;  // int64 or int32 [T, K]
  const float* weights = nullptr;
  std::int32_t num_topk = 0;
  std::int32_t id_bytes = 0;

  MOELINK_HD std::int64_t id(std::int64_t index) const {
    return id_bytes == 8 ? static_cast<const std::int64_t*>(ids)[index]
                         : std::int64_t{static_cast<const std::int32_t*>(ids)[index]};
  }
};

struct DispatchParams {
  device::Domain domain;
  Operation operation = Operation::kDispatch;  // kCachedDispatch: the routing is there already
  ExchangeBlock mine{};
  ReportTarget report;

  std::int64_t num_tokens = 0;  // T
  int num_experts = 0;
  Padding padding = Padding::kZero;
  std::int64_t expert_alignment = 1;
  ReceiveShape shape;

  const std::byte* x = nullptr;  // [T, row_bytes]
  StridedSource scales;
  TopkSource topk;
  const std::uint8_t* mask = nullptr;  // bool [T, R]
  std::int32_t* recv_stats = nullptr;  // int32 [L]
  RoutingMemory routing;
  // Cached: where the first dispatch has left it [N, K]; otherwise it arrives with the rows.
  const std::int32_t* recv_expert_row = nullptr;

  MOELINK_HD CountMatrix count_matrix() const {
    return CountMatrix{routing.counts, domain.num_ranks(), num_experts};
  }
  MOELINK_HD bool is_cached() const { return operation == Operation::kCachedDispatch; }
};

// How a dispatch is spread over the GPU; see plan_dispatch().
struct DispatchPlan {
  int num_blocks = 1;
  // Further blocks of an expert-major dispatch: they write the rows that stay on this rank, and
  // what pads them. 0: the others do the one, and the kernel that follows does the other.
  int num_own_blocks = 0;
  int num_counters = 0;         // routing warps that count at a time
  std::size_t chunk_bytes = 0;  // rows travel in pieces of this size
  std::size_t shared_bytes = 0;
  int num_expand_blocks = 0;  // of the kernel that ends an expert-major dispatch
};

}  // namespace moelink::kernels
