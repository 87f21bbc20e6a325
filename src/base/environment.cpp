// Reads and parses the environment variables.
#include "base/environment.hpp"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "base/check.hpp"

namespace moelink {
namespace {

std::string text_of(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

template <class Integer>
std::optional<Integer> number_of(const char* name, Integer least) {
  const std::string text = text_of(name);
  if (text.empty()) return std::nullopt;
  Integer number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || number < least) {
    fail(ErrorCode::kInvalidArgument, "environment variable {}='{}': expected an integer >= {}",
         name, text, least);
  }
  return number;
}

std::string log_level_of(const char* name, std::string fallback) {
  const std::string text = text_of(name);
  if (text.empty()) return fallback;
  for (const char* level : {"trace", "debug", "info", "warning", "error", "off"}) {
    if (text == level) return text;
  }
  fail(ErrorCode::kInvalidArgument,
       "environment variable {}='{}': expected trace, debug, info, warning, error or off", name,
       text);
}

}  // namespace

Environment Environment::read() {
  Environment result;
  result.log_level = log_level_of("MOELINK_LOG", result.log_level);
  result.secret = text_of("MOELINK_SECRET");
  if (const auto timeout = number_of<std::int64_t>("MOELINK_TIMEOUT_MS", 1)) {
    result.timeout = std::chrono::milliseconds(*timeout);
  }
  result.num_nodes = number_of<int>("MOELINK_NODES", 1).value_or(0);
  result.num_workers = number_of<int>("MOELINK_WORKERS", 1).value_or(0);
  result.max_symmetric_bytes = number_of<std::size_t>("MOELINK_MAX_SYMMETRIC_BYTES", 1).value_or(0);
  result.simd = text_of("MOELINK_SIMD");
  return result;
}

const Environment& environment() {
  static const Environment values = Environment::read();
  return values;
}

}  // namespace moelink
