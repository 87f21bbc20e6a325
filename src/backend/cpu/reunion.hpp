// How ranks that were left out for a while come back: all ranks count on from the same operation.
#pragma once

#include "backend/cpu/cpu_context.hpp"
#include "moelink/trace.hpp"

namespace moelink {

// Called by every unmasked rank, with Survival::kMask; by no rank while another is in an exchange.
// Ranks that were masked have missed operations, so epochs may differ here. Afterwards the next
// epoch is the same at all ranks: one more than the largest. A lost rank is masked.
void meet_again(CpuContext& context, Operation operation);

}  // namespace moelink
