// The body of a receive hook.
#pragma once

#include <functional>
#include <utility>

#include "base/check.hpp"
#include "moelink/trace.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Runs a step once.
class SingleShot {
 public:
  SingleShot(Operation kind, Rank rank, std::function<void()> step)
      : kind_(kind), rank_(rank), step_(std::move(step)) {}

  void operator()() {
    if (!step_) {
      fail(ErrorCode::kInvalidArgument, "{} (rank {}): the hook was called twice, expected once",
           operation_name(kind_), rank_.value());
    }
    const std::function<void()> step = std::exchange(step_, nullptr);
    step();  // drops the operation afterwards, so that it is no longer outstanding
  }

 private:
  Operation kind_;
  Rank rank_;
  std::function<void()> step_;
};

}  // namespace moelink
