// Agreement of all ranks that are left about who is left.
#pragma once

#include <cstdint>

#include "backend/cpu/cpu_context.hpp"
#include "moelink/trace.hpp"

namespace moelink {

// Called by every unmasked rank after the exchange of an operation, with Survival::kMask. Masks
// what any of them has masked, so that all place tokens by the same counts. A rank lost meanwhile
// is masked too; if another is lost in the very last round, ranks may disagree and the operation
// ends by timeout.
void agree_on_masks(CpuContext& context, Operation operation);

// One step of it: tells all unmasked ranks whom this rank has masked, in a round from 1 on.
void publish_masks(CpuContext& context, std::uint32_t round);

}  // namespace moelink
