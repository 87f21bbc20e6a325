// How ranks that are processes have their test skipped.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace moelink::test {

inline constexpr const char* kSkipMark = "skipped: ";

// In a rank: ends it, and with it the test, for a reason that is no failure.
[[noreturn]] inline void skip_rank(const std::string& reason) {
  throw std::runtime_error(kSkipMark + reason);
}

// In the test process: the reason why a rank has skipped, or nothing.
inline std::string skip_reason(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) {
    if (error.starts_with(kSkipMark)) return error.substr(std::string(kSkipMark).size());
  }
  return {};
}

}  // namespace moelink::test
