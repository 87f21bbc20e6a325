// Backs off, and looks after the peers now and then.
#include "backend/cpu/network/relay_wait.hpp"

#include "base/check.hpp"

namespace moelink {

void RelayWait::pause(Rank awaited, const char* what) {
  backoff_.pause();
  // At the deadline at once: who waits for this rank gives up soon, too, and could only blame it.
  const bool expired = deadline().expired();
  if (++round_ % kRoundsPerLook != 0 && !expired) return;
  context_.signals->check_faults(epoch_, wait_context_);
  context_.remote->look_after(awaited, stage_name(wait_context_.stage));
  if (!expired) return;
  fail(ErrorCode::kTimeout, "{} (rank {}), stage {}: rank {} has not {} within {} ms",
       operation_name(wait_context_.operation), context_.rank.value(),
       stage_name(wait_context_.stage), awaited.value(), what, deadline().span().count());
}

}  // namespace moelink
