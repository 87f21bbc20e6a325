// What all backends do alike for one dispatch: its arguments, sizes, checks and result.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/routing_state.hpp"
#include "moelink/results.hpp"
#include "moelink/trace.hpp"
#include "protocol/control_layout.hpp"
#include "protocol/receive_layout.hpp"

namespace moelink {

// The inputs of either kind of dispatch.
struct DispatchInputs {
  TensorView x;
  std::optional<TensorView> scales;
  std::optional<TensorView> topk_weights;
  std::optional<TensorView> topk_idx;  // absent when cached or routed by a mask alone
  std::optional<TensorView> mask;
  std::optional<TensorView> recv_stats;
  StreamOptions stream;
};

// Where the parts of a receive block lie, and who owns them.
struct ReceiveBlock {
  std::byte* parts[kNumReceiveParts] = {};
  std::vector<std::shared_ptr<void>> owners;  // one per part
};

struct DispatchCall {
  Operation operation = Operation::kDispatch;
  Rank rank;
  DispatchInputs inputs;
  // Filled as the dispatch goes on; a cached dispatch only reads it.
  std::shared_ptr<RoutingState> state;
  ReceiveShape shape;

  // `owner`: id of the buffer.
  static DispatchCall make(std::uint64_t owner, Rank rank, int num_ranks,
                           const DispatchConfig& config);
  static DispatchCall make(Rank rank, const CachedDispatchConfig& config);

  bool is_cached() const { return operation == Operation::kCachedDispatch; }
  // With num_worst_tokens (or a cached handle made with it) nothing of the tensors depends on the
  // counts.
  bool has_known_size() const { return state->max_rows > 0; }

  CallDigest digest() const;
  // What the rank tells its peers, with the places that it offers (see ExchangeBlock).
  ExchangeBlock describe(const WireSpan& expected, const WireSpan& largest) const;
  // The receive block of a rank; without counts only for has_known_size().
  ReceiveLayout layout_of(Rank receiver) const;

  // Keeps what the exchange has shown: everybody's counts, tokens and limits.
  void keep_counts(std::vector<std::int32_t> counts, std::span<const ExchangeBlock> blocks) const;
  // Throw Error(kInvalidArgument), alike at all ranks, when rows do not fit num_worst_tokens, or
  // the places that a rank has offered.
  void check_worst_rows() const;
  WireSpan place_of(const ExchangeBlock& block, Rank receiver) const;

  Tensor part_tensor(const ReceiveBlock& block, ReceivePart part, DType dtype, std::int64_t rows,
                     std::int64_t columns) const;
  // Everything but the handle and the event.
  DispatchResult result(const ReceiveBlock& block) const;
  // The handle's tensors that lie in the receive block.
  void keep_origins(const ReceiveBlock& block) const;
};

}  // namespace moelink
