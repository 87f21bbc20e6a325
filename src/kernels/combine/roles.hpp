// Which warps of a combine block do what.
#pragma once

#include <cstddef>

#include "moelink/host_device.hpp"

namespace moelink::kernels {

struct CombineRoles {
  static constexpr int kNumPullWarps = 16;  // all, as long as there are rows; then weights
  static constexpr int kNumThreads = 32 * kNumPullWarps;
};

// A warp sums a row piece by piece; the sums of a piece stay in registers, twice as many if those
// of a node are rounded apart.
MOELINK_HD constexpr std::size_t max_pull_bytes(int num_nodes) {
  return num_nodes > 1 ? 2048 : 4096;
}
// Pieces in flight for each pulling warp.
inline constexpr int kNumPullStages = 3;

}  // namespace moelink::kernels
