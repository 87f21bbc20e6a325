// What the calls on a Buffer return, as structs with named fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "moelink/config.hpp"
#include "moelink/event.hpp"
#include "moelink/trace.hpp"
#include "moelink/types.hpp"

namespace moelink {

struct LayoutResult {
  Tensor num_tokens_per_rank;    // int32 [R], each token counted once per rank
  Tensor num_tokens_per_node;    // int32 [number of nodes], each token counted once per node
  Tensor num_tokens_per_expert;  // int32 [E], each selection counted
  Tensor is_token_in_rank;       // bool [T, R]
};

struct DispatchResult {
  Tensor recv_x;                            // [rows, H]
  std::optional<Tensor> recv_scales;        // [rows, S] contiguous
  std::optional<Tensor> recv_topk_idx;      // compact: type of topk_idx [rows, K]; local id or -1
  std::optional<Tensor> recv_topk_weights;  // compact: float32 [rows, K]; expert-major: [rows]
  // Rows of each local expert rounded up to the alignment; empty with num_worst_tokens.
  std::vector<std::int64_t> num_recv_tokens_per_expert;
  std::shared_ptr<const Routing> handle;
  Event event;  // set with Completion::kAsync
};

struct CombineResult {
  Tensor combined_x;                            // [T, H] of x's type
  std::optional<Tensor> combined_topk_weights;  // float32 [T, K]
  Event event;
};

// How long one stage of an operation took on its first thread block.
struct StageTime {
  Stage stage;
  double microseconds;
};

struct MemoryStatistics {
  std::size_t symmetric_bytes = 0;        // backed by memory now: control area + arena high-water
  std::size_t control_bytes = 0;          // part of it: signals and counts
  std::size_t live_bytes = 0;             // arena bytes held by tensors now
  std::size_t peak_live_bytes = 0;        // largest live_bytes so far
  std::size_t capacity_bytes = 0;         // most that this rank may use
  std::uint64_t num_window_misses = 0;    // dispatches that did not fit the expected window
  std::uint64_t num_staged_combines = 0;  // combines whose x lay outside the arena
};

// What this rank has sent to other nodes in high-throughput operations. All zero if there are none.
struct NetworkStatistics {
  std::uint64_t num_dispatch_rows = 0;  // tokens, each once per node (kDirect: per rank) it went to
  std::uint64_t num_combine_rows = 0;   // sums sent back
  std::uint64_t num_messages = 0;
  std::uint64_t num_bytes = 0;
};

}  // namespace moelink
