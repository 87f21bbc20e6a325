// Which threads of a low latency block do what, and how much of a message a warp takes at a time.
#pragma once

#include "moelink/host_device.hpp"

namespace moelink::kernels {

// All warps take every role in turn: send, then receive.
struct LowLatencyRoles {
  static constexpr int kNumWarps = 16;
  static constexpr int kNumThreads = 32 * kNumWarps;
};

inline constexpr int kLinesPerStep = 4;  // a warp holds as many with one vector per lane
inline constexpr int kRowSteps = 2;      // of a part of a row, which a warp has in flight at a time
inline constexpr int kMaxLowLatencyHidden = 16384;  // a row must fit the shared memory of a block

}  // namespace moelink::kernels
