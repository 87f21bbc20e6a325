// Checks: user errors become Error, broken invariants abort.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "moelink/errors.hpp"
#include "moelink/types.hpp"

namespace moelink {

[[noreturn]] void throw_system_error(int error_number, const std::string& what);
[[noreturn]] void abort_on_broken_invariant(const char* condition, const char* file, int line);

template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// "kSystem" error with the text of errno; call it before anything else changes errno.
template <class... Args>
[[noreturn]] void fail_errno(int error_number, fmt::format_string<Args...> format, Args&&... args) {
  throw_system_error(error_number, fmt::format(format, std::forward<Args>(args)...));
}

// Collects what is wrong with a call, so that the user sees all of it at once.
class Violations {
 public:
  // `context` opens the message, such as "dispatch (rank 2)".
  explicit Violations(std::string context) : context_(std::move(context)) {}
  // Opens with the call and its rank, and makes no text unless something is wrong. `call` must
  // outlive this.
  Violations(const char* call, Rank rank) : call_(call), rank_(rank) {}

  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    messages_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  // The arguments are evaluated in any case: for those that take time, test and add().
  template <class... Args>
  void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) add(format, std::forward<Args>(args)...);
  }

  bool empty() const { return messages_.empty(); }
  // Throws Error(kInvalidArgument) with every message, or returns if there are none.
  void throw_if_any() const;

 private:
  std::string context_;
  const char* call_ = nullptr;
  Rank rank_;
  std::vector<std::string> messages_;
};

}  // namespace moelink

#define MOELINK_INVARIANT(condition) \
  ((condition) ? void() : ::moelink::abort_on_broken_invariant(#condition, __FILE__, __LINE__))
