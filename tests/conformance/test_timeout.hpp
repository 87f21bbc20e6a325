// How long tests let ranks wait.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace moelink::test {

// `usual`, or MOELINK_TEST_TIMEOUT_SECONDS from the environment if that is longer: a sanitizer of
// the GPU makes kernels many times slower.
inline std::chrono::seconds test_timeout(std::chrono::seconds usual) {
  const char* const wish = std::getenv("MOELINK_TEST_TIMEOUT_SECONDS");
  return wish == nullptr ? usual : std::max(usual, std::chrono::seconds(std::atoi(wish)));
}

}  // namespace moelink::test
