// Depth of the pipes that carry rows.
#pragma once

namespace moelink::kernels {

// Pieces in flight for each warp: one arrives, one is being sent, one is behind.
inline constexpr int kNumStages = 3;

}  // namespace moelink::kernels
