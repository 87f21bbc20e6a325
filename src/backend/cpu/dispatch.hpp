// High-throughput dispatch on the CPU: exchange counts, then write every row to its final place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/exchange.hpp"
#include "backend/cpu/route.hpp"
#include "backend/routing_state.hpp"
#include "moelink/results.hpp"
#include "protocol/receive_layout.hpp"

namespace moelink {

// The inputs of either kind of dispatch.
struct DispatchInputs {
  TensorView x;
  std::optional<TensorView> scales;
  std::optional<TensorView> topk_weights;
  TopkList topk;                       // empty when cached or routed by a mask alone
  std::optional<TensorView> topk_idx;  // the same, for its type
  std::optional<TensorView> mask;
  std::optional<TensorView> recv_stats;
  StreamOptions stream;
};

// One dispatch in flight. The caller runs begin() and finish() in order, on the stream.
class DispatchOperation {
 public:
  // A first dispatch: `state` has the sizes and options of the call, begin() fills in the rest.
  static std::shared_ptr<DispatchOperation> make(CpuContext& context, const DispatchConfig& config);
  // A cached one: reuses the placement of `state`.
  static std::shared_ptr<DispatchOperation> make(CpuContext& context,
                                                 const CachedDispatchConfig& config);

  DispatchOperation(CpuContext& context, Operation operation, DispatchInputs inputs,
                    std::shared_ptr<RoutingState> state);

  // With exact sizes the receive tensors exist after begin(). With num_worst_tokens (or a cached
  // handle made with it) they can be made before, by reserve(), and begin() needs no return to the
  // host.
  bool has_known_size() const { return state_->max_rows > 0; }
  void reserve();

  void begin();   // route, count, exchange, place
  void finish();  // send, signal, receive

  const std::shared_ptr<RoutingState>& state() const { return state_; }
  // Tensors; their contents are valid after finish().
  DispatchResult result() const;

 private:
  // Where one destination takes the parts of a row.
  struct Target {
    std::byte* parts[kNumReceiveParts] = {};
    bool present = false;  // false: the rank is masked
    std::byte* part(ReceivePart which) const { return parts[static_cast<std::size_t>(which)]; }
  };

  bool cached() const { return operation_ == Operation::kCachedDispatch; }
  ReceiveLayout layout_of(Rank rank) const;
  CallDigest digest() const;
  ExchangeBlock describe_call();
  ArenaSpan offered_span(const ExchangeBlock& block, Rank rank, std::size_t needed) const;
  void choose_targets(const Exchange& exchange);
  void check_worst_rows() const;
  void keep_parts(const ArenaSpan& chosen);

  void send_tokens(IndexRange tokens) const;
  void send_metadata(std::int64_t token, Rank destination, const Target& target) const;
  void send_topk(std::int64_t token, Rank destination, std::int64_t row,
                 const Target& target) const;
  void send_expert_weights(std::int64_t token) const;
  void gather_rows(std::int64_t token, ReceivePart part, std::size_t row_bytes,
                   std::vector<void*>& rows) const;
  void clear_rows(ReceivePart part, IndexRange rows, std::size_t row_bytes, std::byte value) const;
  void fill_unused_rows() const;
  // Zeroes the rows of a rank that was lost; their ids become -1.
  void clear_rows_of(Rank source) const;
  std::int64_t fill_group_gaps() const;  // returns the end of the last group
  void add_statistics() const;
  Tensor part_tensor(ReceivePart part, DType dtype, std::int64_t rows, std::int64_t columns) const;

  CpuContext& context_;
  Operation operation_;
  DispatchInputs inputs_;
  std::shared_ptr<RoutingState> state_;
  ReceiveShape shape_;
  Epoch epoch_;
  ArenaSpan reserved_;  // of reserve()
  std::vector<std::shared_ptr<void>> parts_;
  std::vector<Target> targets_;  // by rank
};

}  // namespace moelink
