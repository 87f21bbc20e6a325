// Ranks that die in a chosen stage of an operation.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>

#include "base/unique_fd.hpp"
#include "conformance/buffer_rank.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "moelink/trace.hpp"

namespace moelink::test {

// Where the victim dies, and how the ranks return their rows.
struct Death {
  Operation operation;
  Stage stage;
  CombineOptions::Place place = CombineOptions::Place::kHeap;

  friend std::ostream& operator<<(std::ostream& out, const Death& death) {
    return out << operation_name(death.operation) << "_" << stage_name(death.stage);
  }
};

// When the victim died, as processes that were forked later can tell one another.
class TimeOfDeath {
 public:
  using Clock = std::chrono::steady_clock;

  TimeOfDeath()
      : nanoseconds_(static_cast<std::atomic<std::int64_t>*>(
            ::mmap(nullptr, sizeof(std::atomic<std::int64_t>), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    if (nanoseconds_ == MAP_FAILED) throw std::runtime_error("mmap failed");
  }
  TimeOfDeath(const TimeOfDeath&) = delete;
  TimeOfDeath& operator=(const TimeOfDeath&) = delete;
  ~TimeOfDeath() { ::munmap(nanoseconds_, sizeof(std::atomic<std::int64_t>)); }

  void note() const { nanoseconds_->store(now()); }
  std::chrono::milliseconds since() const {
    return std::chrono::milliseconds((now() - nanoseconds_->load()) / 1'000'000);
  }

 private:
  static std::int64_t now() {
    return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
  }

  std::atomic<std::int64_t>* nanoseconds_;
};

// The calling process survives two passes through the stage and dies at the beginning of the third.
inline void die_in(const Death& death, const TimeOfDeath* time = nullptr) {
  auto passes = std::make_shared<std::atomic<int>>(0);
  set_trace_hook([=](const TraceEvent& event) {
    const bool here = event.operation == death.operation && event.stage == death.stage &&
                      event.point == TracePoint::kBegin;
    if (!here || ++*passes != 3) return;
    if (time != nullptr) time->note();
    die_by_sigkill();
  });
}

inline std::uint16_t unused_port() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener.get(), generic, size) != 0) throw std::runtime_error("bind failed");
  if (::getsockname(listener.get(), generic, &size) != 0) throw std::runtime_error("no name");
  return ntohs(address.sin_port);
}

}  // namespace moelink::test
