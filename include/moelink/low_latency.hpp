// Arguments and results of the low latency mode: small batches, fixed slots, no counts beforehand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "moelink/config.hpp"
#include "moelink/quantize.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Symbols as in config.hpp; M = num_max_tokens_per_rank.

enum class LowLatencyLayout : std::uint8_t {
  kPerExpert,  // [L, R*M, H]: a row per (token, local expert), packed from row 0 of each expert
  kPerRank,    // [R, M, H]: a row per (source rank, token), packed from row 0 of each rank
};

enum class CombineNumerics : std::uint8_t {
  // A row per (token, expert) travels; the token's owner multiplies by the weights and adds in
  // float32, k ascending, and rounds once.
  kExact,
  // The expert's rank multiplies and adds its rows in float32, k ascending, and rounds; one row per
  // (token, rank) travels, the owner adds these in float32, ranks ascending. Needs the weights at
  // dispatch.
  kPreReduced,
};

// When the receiving half of an operation runs.
enum class ReceivePhase : std::uint8_t {
  kInCall,  // as part of the call
  kByHook,  // when the result's hook is called, on the thread that calls it
};

// Runs the receiving half of one operation; to be called exactly once. A second call throws
// Error(kInvalidArgument).
using ReceiveHook = std::function<void()>;

struct LowLatencyDispatchConfig {
  TensorView x;         // bfloat16 [T, H], T <= M, H a multiple of 128 (of 512 for packed UE8M0)
  TensorView topk_idx;  // int64 or int32 [T, K], -1 = no selection
  // float32 [T, K]: travels with the tokens; for the per-rank layout and pre-reduced combines.
  std::optional<TensorView> topk_weights;
  int num_max_tokens_per_rank = 0;  // M, equal on all ranks, at most 4096
  int num_experts = 0;
  std::optional<ScaleFormat> fp8;  // quantise on send; absent: bfloat16
  LowLatencyLayout layout = LowLatencyLayout::kPerExpert;
  std::optional<TensorView> recv_stats;  // int32 [L]: received rows are added
  std::optional<TensorView> wait_cost;   // int64 [R]: nanoseconds waited for each rank are added
  ReceivePhase receive = ReceivePhase::kInCall;
  StreamOptions stream;
};

struct CudaLowLatencyRouting;

// The routing of one low latency dispatch.
struct LowLatencyRouting {
  std::uint64_t owner = 0;  // id of the buffer
  LowLatencyLayout layout = LowLatencyLayout::kPerExpert;
  std::int64_t num_tokens = 0;  // T here
  int num_max_tokens_per_rank = 0;
  std::int64_t hidden = 0;
  int num_experts = 0;
  int num_topk = 0;
  Tensor src_info;      // per expert: int32 [L, R*M]; per rank: int32 [R, M]; token at its source
  Tensor layout_range;  // int64 [L, R]: low 32 bits rows of that rank, high 32 bits the first one
  Tensor src_topk;      // per expert: int32 [L, R*M]: position k in the token's list
  Tensor src_weight;    // per expert: float32 [L, R*M], if weights travelled
  Tensor recv_count;    // per expert: int32 [L]; per rank: int32 [R]
  std::shared_ptr<const CudaLowLatencyRouting> cuda;  // the CUDA backend's own part
  // Of a buffer of GPUs of several nodes: the same, with tensors in memory of the host.
  std::shared_ptr<const LowLatencyRouting> on_host;
};

struct LowLatencyDispatchResult {
  Tensor recv_x;
  // Per expert: float32 [L, R*M, H/128] or int32 [L, R*M, H/512], strides (.., 1, R*M); per rank
  // the same with R and M for L and R*M.
  std::optional<Tensor> recv_scales;
  Tensor recv_count;                        // valid rows: int32 [L], or [R] in the per-rank layout
  std::optional<Tensor> recv_topk_idx;      // per rank: int32 [R, M, K], local id or -1
  std::optional<Tensor> recv_topk_weights;  // per rank: float32 [R, M, K], 0 where the id is -1
  std::shared_ptr<const LowLatencyRouting> handle;
  Event event;
  ReceiveHook hook;  // set with ReceivePhase::kByHook
};

// Where combine takes the experts' rows from.
enum class CombineInput : std::uint8_t {
  kTensor,    // x
  kNextArea,  // the tensor of Buffer::low_latency_combine_buffer(); x gives only the shape
};

struct LowLatencyCombineConfig {
  TensorView x;             // bfloat16, shape as recv_x
  TensorView topk_idx;      // this rank's routing: as given to dispatch
  TensorView topk_weights;  // float32 [T, K]; not used by the per-rank layout
  std::shared_ptr<const LowLatencyRouting> handle;
  CombineNumerics numerics = CombineNumerics::kExact;
  CombineInput input = CombineInput::kTensor;
  std::optional<TensorView> out;        // bfloat16 [T, H]
  std::optional<TensorView> wait_cost;  // int64 [R], as in dispatch
  ReceivePhase receive = ReceivePhase::kInCall;
  StreamOptions stream;
};

struct LowLatencyCombineResult {
  Tensor combined_x;  // bfloat16 [T, H]
  Event event;
  ReceiveHook hook;
};

}  // namespace moelink
