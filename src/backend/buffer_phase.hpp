// Whether a buffer still works: open, then perhaps broken, at last closed.
#pragma once

#include <mutex>
#include <string>

#include "moelink/trace.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Thread-safe.
class BufferPhase {
 public:
  enum class Phase { kOpen, kBroken, kClosed };

  Phase phase() const;
  // Throws Error(kInvalidArgument) if the buffer is closed, Error(kPeerLost) if it is broken.
  void require_open(Operation operation, Rank rank) const;
  // An open buffer breaks, and the log says why. True for the call that broke it.
  bool break_open(Operation operation, Rank rank, const std::string& reason);
  void close();

 private:
  mutable std::mutex mutex_;
  Phase phase_ = Phase::kOpen;
  std::string reason_;  // why it broke
};

}  // namespace moelink
