// Agreement of all ranks that are left about who is left.
#pragma once

#include "backend/cpu/cpu_context.hpp"
#include "moelink/trace.hpp"

namespace moelink {

// Called by every unmasked rank after the exchange of an operation, with Survival::kMask. Masks
// what any of them has masked, so that all place tokens by the same counts. A rank lost meanwhile
// is masked too; if another is lost in the very last round, ranks may disagree and the operation
// ends by timeout.
void agree_on_masks(CpuContext& context, Operation operation);

}  // namespace moelink
