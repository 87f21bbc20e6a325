// The device's part of a handle.
#pragma once

#include <memory>

#include "backend/cuda/cuda_context.hpp"
#include "backend/routing_state.hpp"
#include "kernels/dispatch/params.hpp"

namespace moelink {

struct CudaRouting {
  kernels::RoutingMemory memory;
  std::shared_ptr<void> owner;  // of the above
  kernels::ReceivedMemory received;
  std::shared_ptr<void> received_owner;
};

// Memory for the handle of a dispatch whose sizes `state` has, and the handle's tensors in it.
std::shared_ptr<CudaRouting> make_cuda_routing(const CudaContext& context, RoutingState& state);

// Reads back the counts of a dispatch that is complete.
void settle_routing(const CudaRouting& routing, RoutingState& state, Rank rank);

}  // namespace moelink
