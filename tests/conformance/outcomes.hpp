// How a call under test ended, and conditions on it for ranks that are threads or processes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "conformance/memory_probes.hpp"
#include "moelink/errors.hpp"

namespace moelink::test {

// Nothing, or the code and the text of the call's Error.
struct Outcome {
  std::optional<ErrorCode> code;
  std::string text;
};

inline Outcome outcome_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

inline void require_words(const std::string& text, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    require(text.find(word) != std::string::npos, "'{}' is not in: {}", word, text);
  }
}

inline void require_failure(const Outcome& outcome, ErrorCode code,
                            const std::vector<std::string>& words) {
  require(outcome.code.has_value(), "nothing was thrown; expected: {}", words.front());
  require(*outcome.code == code, "expected '{}', seen: {}", error_code_name(code), outcome.text);
  require_words(outcome.text, words);
}

}  // namespace moelink::test
