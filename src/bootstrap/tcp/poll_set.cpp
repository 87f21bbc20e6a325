// Waits by ppoll.
#include "bootstrap/tcp/poll_set.hpp"

#include <cerrno>
#include <ctime>

#include "base/check.hpp"

namespace moelink::tcp {

namespace {

// Longest sleep between two looks at a deadline.
constexpr std::chrono::seconds kMaxSleep{1};

timespec to_timespec(std::chrono::nanoseconds span) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(span);
  timespec time{};
  time.tv_sec = static_cast<std::time_t>(seconds.count());
  time.tv_nsec = static_cast<long>((span - seconds).count());
  return time;
}

}  // namespace

std::size_t PollSet::add(int fd, short events) {
  entries_.push_back({.fd = fd, .events = events, .revents = 0});
  return entries_.size() - 1;
}

void PollSet::wait(std::chrono::nanoseconds limit) {
  const timespec timeout = to_timespec(limit);
  if (::ppoll(entries_.data(), entries_.size(), &timeout, nullptr) >= 0) return;
  const int error_number = errno;
  if (error_number != EINTR) fail_errno(error_number, "poll of {} sockets", entries_.size());
  for (pollfd& entry : entries_) entry.revents = 0;
}

bool wait_for(int fd, short events, const Deadline& deadline) {
  while (true) {
    PollSet set;
    const std::size_t idx = set.add(fd, events);
    const bool last = deadline.expired();
    set.wait(deadline.remaining(kMaxSleep));
    if (set.ready(idx)) return true;
    if (last) return false;
  }
}

}  // namespace moelink::tcp
