// High-throughput dispatch on the GPU.
#pragma once

#include <memory>

#include "backend/cuda/cuda_context.hpp"
#include "backend/cuda/cuda_routing.hpp"
#include "backend/dispatch_call.hpp"
#include "kernels/dispatch/params.hpp"

namespace moelink {

// One dispatch; run() once.
class CudaDispatch {
 public:
  CudaDispatch(CudaContext& context, DispatchCall call);

  // Launches the kernels. Waits for the counts only if the sizes of the tensors depend on them.
  DispatchResult run();

 private:
  void check_tensors() const;
  // The sizes of the receive tensors are known without an exchange.
  bool knows_size() const { return call_.has_known_size() || call_.is_cached(); }
  kernels::DispatchParams params(const ExchangeBlock& mine) const;
  ExchangeBlock offer();
  ReceiveBlock reserve();
  ReceiveBlock parts_at(const WireSpan& place, const ReceiveLayout& layout) const;
  ReceiveBlock block_at(const WireSpan& place, const ReceiveLayout& layout) const;
  // Reads the report of the exchange; throws what is wrong with the calls, if anything.
  ReceiveBlock settle(const kernels::Report& report);
  // Leaves it to the handle to read the counts back when somebody asks.
  void settle_later(const ReceiveBlock& block) const;
  void list_received(DispatchResult& result) const;

  CudaContext& context_;
  DispatchCall call_;
  std::shared_ptr<CudaRouting> routing_;
  WireSpan reserved_{};
};

}  // namespace moelink
