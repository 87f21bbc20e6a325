// Arguments of the combine kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/domain.hpp"
#include "kernels/combine/roles.hpp"
#include "kernels/dispatch/params.hpp"
#include "kernels/exchange/report.hpp"
#include "moelink/config.hpp"
#include "moelink/dtypes.hpp"

namespace moelink::kernels {

struct CombineParams {
  device::Domain domain;
  ExchangeBlock mine{};
  ReportTarget report;
  std::int64_t num_tokens = 0;  // T
  int num_topk = 0;
  Layout layout = Layout::kCompact;
  DType dtype = DType::kBFloat16;
  std::size_t row_bytes = 0;
  RoutingMemory routing;
  // Of a rank that stages; all else is null at others.
  const std::byte* x = nullptr;         // rows in the dispatch's order
  const std::byte* own_rows = nullptr;  // x if this rank reads its own rows there: when compact
  std::byte* ring = nullptr;            // see StagingRing
  ReceivedMemory received;
  int num_experts = 0;
  const std::byte* bias_0 = nullptr;  // [T, row_bytes] or null
  const std::byte* bias_1 = nullptr;
  std::byte* out = nullptr;      // [T, row_bytes]
  float* out_weights = nullptr;  // [T, K] or null

  // Whether the rows of `of` are this rank's own and are read where they lie, not from the ring.
  MOELINK_HD bool reads_itself(int of) const {
    return own_rows != nullptr && of == domain.rank.value();
  }
  bool has_nodes() const { return domain.topology.num_nodes > 1; }
  bool stages() const { return x != nullptr; }
};

// How a combine is spread over the GPU; see plan_combine().
struct CombinePlan {
  int num_blocks = 1;
  int num_stage_blocks = 0;       // further ones that only stage
  int num_stage_warps = 0;        // of each block; the others pull
  std::uint32_t chunk_bytes = 0;  // rows are summed in pieces of this size
  int num_chunks = 1;             // pieces of a row
  std::size_t shared_bytes = 0;
  WarpCrew pulling;
  WarpCrew staging;  // without those that lead
};

}  // namespace moelink::kernels
