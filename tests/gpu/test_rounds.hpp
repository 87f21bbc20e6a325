// How many rounds a stress test runs.
#pragma once

#include <cstdlib>

namespace moelink::test {

// Rounds of a dispatch and a combine; fewer (MOELINK_TEST_ROUNDS) where ranks take turns on a GPU,
// or a sanitizer looks on: both are slow.
inline int num_rounds() {
  const char* const wish = std::getenv("MOELINK_TEST_ROUNDS");
  return wish == nullptr ? 300 : std::atoi(wish);
}

}  // namespace moelink::test
