// Reads and parses the environment variables.
#include "base/environment.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <span>
#include <vector>

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

std::string choice_of(const char* name, const std::vector<std::string>& choices,
                      std::string fallback) {
  std::string text = text_of(name);
  if (text.empty()) return fallback;
  if (std::find(choices.begin(), choices.end(), text) != choices.end()) return text;
  const std::span<const std::string> all_but_last(choices.data(), choices.size() - 1);
  fail(ErrorCode::kInvalidArgument, "environment variable {}='{}': expected {} or {}", name, text,
       fmt::join(all_but_last, ", "), choices.back());
}

}  // namespace

Environment Environment::read() {
  Environment result;
  result.log_level = choice_of("MOELINK_LOG", {"trace", "debug", "info", "warning", "error", "off"},
                               result.log_level);
  result.secret = text_of("MOELINK_SECRET");
  if (const auto timeout = number_of<std::int64_t>("MOELINK_TIMEOUT_MS", 1)) {
    result.timeout = std::chrono::milliseconds(*timeout);
  }
  result.num_nodes = number_of<int>("MOELINK_NODES", 1).value_or(0);
  result.num_workers = number_of<int>("MOELINK_WORKERS", 1).value_or(0);
  result.max_symmetric_bytes = number_of<std::size_t>("MOELINK_MAX_SYMMETRIC_BYTES", 1).value_or(0);
  result.simd = text_of("MOELINK_SIMD");
  result.cuda_memory = choice_of("MOELINK_CUDA_MEMORY", {"auto", "vmm", "fabric", "ipc", "pinned"},
                                 result.cuda_memory);
  result.line_format = choice_of("MOELINK_LINES", {"auto", "whole", "split"}, result.line_format);
  result.network =
      choice_of("MOELINK_NETWORK", {"auto", "libfabric", "loopback", "memory"}, result.network);
  result.network_mode =
      choice_of("MOELINK_NETWORK_MODE", {"auto", "hierarchical", "direct"}, result.network_mode);
  result.fabric_provider = text_of("MOELINK_FABRIC_PROVIDER");
  result.max_nics = number_of<int>("MOELINK_NICS", 1).value_or(result.max_nics);
  return result;
}

const Environment& environment() {
  static const Environment values = Environment::read();
  return values;
}

}  // namespace moelink
