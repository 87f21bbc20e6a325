// A collective call for which the host waits and that moves nothing.
#pragma once

#include <vector>

#include "backend/cuda/cuda_context.hpp"
#include "moelink/trace.hpp"
#include "protocol/control_layout.hpp"

namespace moelink {

struct HostExchange {
  std::vector<ExchangeBlock> blocks;  // [R], of ranks that are present
  std::vector<bool> present;          // [R]: all but those that are masked
};

// Collective among unmasked ranks: tells them `mine`, whose operation it fills in, and hears
// theirs. All operations of this rank so far have ended then. Throws as await_report() does, and
// Error(kInvalidArgument) at all ranks if the digests differ. With Survival::kMask, ranks that do
// not come are masked instead.
HostExchange exchange_on_host(CudaContext& context, Operation operation, ExchangeBlock mine);

}  // namespace moelink
