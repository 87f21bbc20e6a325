// Where a thread that must not throw leaves its first error for all others.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "moelink/errors.hpp"

namespace moelink {

// Thread-safe. Once parked, an error stays: everyone who asks gets it.
class ErrorPark {
 public:
  // True if it was the first; later ones are dropped.
  bool park(const Error& error);
  bool occupied() const { return occupied_.load(std::memory_order_acquire); }
  void throw_if_occupied() const;
  std::string text() const;  // of the error; empty if there is none

 private:
  std::atomic<bool> occupied_{false};
  mutable std::mutex mutex_;
  std::optional<Error> error_;
};

}  // namespace moelink
