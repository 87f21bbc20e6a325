// Texts of error codes, and the functions that throw or abort.
#include "moelink/errors.hpp"

#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "base/check.hpp"

namespace moelink {

const char* error_code_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kTimeout:
      return "timeout";
    case ErrorCode::kPeerLost:
      return "peer lost";
    case ErrorCode::kSystem:
      return "system error";
    case ErrorCode::kInternal:
      return "internal error";
  }
  return "unknown error";
}

Error::Error(ErrorCode code, const std::string& message)
    : std::runtime_error(fmt::format("{}: {}", error_code_name(code), message)), code_(code) {}

void Violations::throw_if_any() const {
  if (messages_.empty()) return;
  const std::string opening =
      call_ == nullptr ? context_ : fmt::format("{} (rank {})", call_, rank_.value());
  fail(ErrorCode::kInvalidArgument, "{}: {}", opening, fmt::join(messages_, "; "));
}

void throw_system_error(int error_number, const std::string& what) {
  const std::string reason = std::generic_category().message(error_number);
  throw Error(ErrorCode::kSystem, fmt::format("{}: {} (errno {})", what, reason, error_number));
}

void abort_on_broken_invariant(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "moelink: broken invariant: %s at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace moelink
