// Waits for any of several file descriptors.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstddef>
#include <vector>

#include "base/deadline.hpp"

namespace moelink::tcp {

class PollSet {
 public:
  // Returns the index to ask ready() with.
  std::size_t add(int fd, short events);
  // Until a descriptor is ready or `limit` has passed; may return early.
  void wait(std::chrono::nanoseconds limit);
  // Also true for errors and for a closed other side.
  bool ready(std::size_t idx) const { return entries_[idx].revents != 0; }

 private:
  std::vector<pollfd> entries_;
};

// False if the deadline passed first.
bool wait_for(int fd, short events, const Deadline& deadline);

}  // namespace moelink::tcp
