// Phases of a buffer, and what a call on one that no longer works is told.
#include "backend/buffer_phase.hpp"

#include "base/check.hpp"
#include "base/log.hpp"

namespace moelink {

BufferPhase::Phase BufferPhase::phase() const {
  const std::lock_guard lock(mutex_);
  return phase_;
}

void BufferPhase::require_open(Operation operation, Rank rank) const {
  const std::lock_guard lock(mutex_);
  if (phase_ == Phase::kClosed) {
    fail(ErrorCode::kInvalidArgument, "{} (rank {}): the buffer is closed",
         operation_name(operation), rank.value());
  }
  if (phase_ == Phase::kBroken) {
    fail(ErrorCode::kPeerLost, "{} (rank {}): the buffer is broken by an earlier failure: {}",
         operation_name(operation), rank.value(), reason_);
  }
}

bool BufferPhase::break_open(Operation operation, Rank rank, const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kOpen) return false;
    phase_ = Phase::kBroken;
    reason_ = reason;
  }
  log(LogLevel::kError, "rank {}: {} failed: {}", rank.value(), operation_name(operation), reason);
  return true;
}

void BufferPhase::close() {
  const std::lock_guard lock(mutex_);
  phase_ = Phase::kClosed;
}

}  // namespace moelink
