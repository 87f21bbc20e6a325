// Keeps the first error, throws copies of it.
#include "proxy/error_park.hpp"

namespace moelink {

bool ErrorPark::park(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (error_) return false;
  error_ = error;
  occupied_.store(true, std::memory_order_release);
  return true;
}

void ErrorPark::throw_if_occupied() const {
  if (!occupied()) return;
  const std::lock_guard lock(mutex_);
  throw Error(*error_);
}

std::string ErrorPark::text() const {
  const std::lock_guard lock(mutex_);
  return error_ ? error_->what() : std::string();
}

}  // namespace moelink
