// The one exception type of Moelink; its code tells the caller what to do.
#pragma once

#include <stdexcept>
#include <string>

namespace moelink {

enum class ErrorCode {
  kInvalidArgument,  // the call is wrong: fix the named argument and call again
  kUnsupported,      // this build or machine cannot do it: `moelink doctor` says why
  kTimeout,          // a peer did not arrive before the deadline
  kPeerLost,         // a peer died or gave up: make a new group without it
  kSystem,           // the operating system or a driver refused (errno text is included)
  kInternal,         // a bug in Moelink: please report it
};

// "invalid argument", "timeout", ...: the text used in messages.
const char* error_code_name(ErrorCode code) noexcept;

// Thrown by every public function that fails. `what()` names the argument or the stage, the value
// seen, the value expected, and the rank.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message);

  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace moelink
