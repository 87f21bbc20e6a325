// Which warps of a dispatch block do what.
#pragma once

namespace moelink::kernels {

struct DispatchRoles {
  static constexpr int kNumSendWarps = 8;
  static constexpr int kNumDescribeWarps = 8;
  static constexpr int kNumWarps = 16;
  static constexpr int kNumThreads = 32 * kNumWarps;
  static_assert(kNumSendWarps + kNumDescribeWarps == kNumWarps);
};

}  // namespace moelink::kernels
