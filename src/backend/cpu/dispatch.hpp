// High-throughput dispatch on the CPU: exchange counts, then write every row to its final place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/exchange.hpp"
#include "backend/cpu/route.hpp"
#include "backend/cpu/row_writer.hpp"
#include "backend/dispatch_call.hpp"
#include "moelink/results.hpp"
#include "protocol/receive_layout.hpp"

namespace moelink {

// One dispatch in flight. The caller runs begin() and finish() in order, on the stream.
class DispatchOperation {
 public:
  // A first dispatch: `state` has the sizes and options of the call, begin() fills in the rest.
  static std::shared_ptr<DispatchOperation> make(CpuContext& context, const DispatchConfig& config);
  // A cached one: reuses the placement of `state`.
  static std::shared_ptr<DispatchOperation> make(CpuContext& context,
                                                 const CachedDispatchConfig& config);

  DispatchOperation(CpuContext& context, DispatchCall call);

  // With exact sizes the receive tensors exist after begin(). With num_worst_tokens (or a cached
  // handle made with it) they can be made before, by reserve(), and begin() needs no return to the
  // host.
  bool has_known_size() const { return call_.has_known_size(); }
  void reserve();

  void begin();   // route, count, exchange, place
  void finish();  // send, signal, receive

  const std::shared_ptr<RoutingState>& state() const { return call_.state; }
  // Tensors; their contents are valid after finish().
  DispatchResult result() const;

 private:
  ExchangeBlock describe_call();
  void choose_targets(const Exchange& exchange);
  ReceiveBlock own_block() const;

  TokenRows own_tokens() const;
  void send_tokens();
  void write_tokens(const RowWriter& writer, const TokenRows& tokens, IndexRange range);
  void send_with_relay(const TokenRows& tokens, const RowWriter& writer);
  void clear_rows(ReceivePart part, IndexRange rows, std::size_t row_bytes, std::byte value) const;
  void fill_unused_rows() const;
  // Zeroes the rows of a rank that was lost; their ids become -1.
  void clear_rows_of(Rank source) const;
  std::int64_t fill_group_gaps() const;  // returns the end of the last group
  void add_statistics() const;

  CpuContext& context_;
  DispatchCall call_;
  TopkList topk_;  // empty when cached or routed by a mask alone
  Epoch epoch_;
  ArenaSpan reserved_;  // of reserve()
  std::vector<std::shared_ptr<void>> parts_;
  std::vector<RowTarget> targets_;  // by rank
  std::vector<bool> present_;       // by rank
};

}  // namespace moelink
