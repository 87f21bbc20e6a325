// Arguments of the combine kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/domain.hpp"
#include "kernels/dispatch/params.hpp"
#include "kernels/exchange/report.hpp"
#include "moelink/config.hpp"
#include "moelink/dtypes.hpp"

namespace moelink::kernels {

// The part of a combine that needs no peer: brings the rows of this rank's experts into symmetric
// memory, in compact order, the rows of several local experts of a token already added up.
struct StageParams {
  const std::byte* x = nullptr;              // rows of the dispatch's order
  std::byte* staged = nullptr;               // [N, row_bytes]
  const std::int32_t* expert_row = nullptr;  // [N, K]; null: compact, rows are only copied
  const std::int32_t* counts = nullptr;      // [R, R + E], see CountMatrix
  Rank rank;
  int num_ranks = 0;
  int num_experts = 0;
  int num_topk = 0;
  DType dtype = DType::kBFloat16;
  std::size_t row_bytes = 0;
};

struct CombineParams {
  device::Domain domain;
  ExchangeBlock mine{};
  ReportTarget report;
  std::int64_t num_tokens = 0;  // T
  int num_topk = 0;
  Layout layout = Layout::kCompact;  // of the weights; rows are compact always
  DType dtype = DType::kBFloat16;
  std::size_t row_bytes = 0;
  RoutingMemory routing;
  const std::byte* bias_0 = nullptr;  // [T, row_bytes] or null
  const std::byte* bias_1 = nullptr;
  std::byte* out = nullptr;      // [T, row_bytes]
  float* out_weights = nullptr;  // [T, K] or null
};

struct CombinePlan {
  int num_blocks = 1;
  int num_stage_blocks = 1;
  std::size_t chunk_bytes = 0;  // rows are summed in pieces of this size
  int num_chunks = 1;           // pieces of a row
  std::size_t shared_bytes = 0;
};

}  // namespace moelink::kernels
