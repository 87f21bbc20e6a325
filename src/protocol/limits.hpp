// Limits that all ranks must share, and the alignment helpers of the layouts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"

namespace moelink {

inline constexpr int kMaxTopk = 32;
inline constexpr int kMaxRanks = 1024;
inline constexpr std::size_t kRowGranuleBytes = 16;  // a row is a whole number of these
inline constexpr std::size_t kPartAlignment = 256;   // start of each tensor inside a receive block

MOELINK_HD constexpr std::size_t align_up(std::size_t value, std::size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

MOELINK_HD constexpr std::int64_t align_up(std::int64_t value, std::int64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace moelink
