// Checks on the words of error messages.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace moelink::test {

inline ::testing::AssertionResult mentions(const std::string& text,
                                           const std::vector<std::string>& pieces) {
  for (const std::string& piece : pieces) {
    if (text.find(piece) != std::string::npos) continue;
    return ::testing::AssertionFailure() << "'" << text << "' does not mention '" << piece << "'";
  }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult all_mention(const std::vector<std::string>& texts,
                                              const std::vector<std::string>& pieces) {
  if (texts.empty()) return ::testing::AssertionFailure() << "there are no texts";
  for (const std::string& text : texts) {
    if (::testing::AssertionResult result = mentions(text, pieces); !result) return result;
  }
  return ::testing::AssertionSuccess();
}

}  // namespace moelink::test
