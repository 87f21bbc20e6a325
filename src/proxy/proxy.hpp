// A thread that drains lanes of commands into a transport.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "proxy/doorbell.hpp"
#include "proxy/error_park.hpp"
#include "proxy/lane.hpp"
#include "proxy/lane_drain.hpp"
#include "proxy/ring_memory.hpp"
#include "transport/transport.hpp"

namespace moelink {

struct ProxyConfig {
  RingLayout rings{.num_lanes = 1, .num_slots = 256};
  // Where the rings lie, zero-filled, of rings.total_bytes() and aligned to 64; empty: memory of
  // the proxy's own. A GPU's commands need memory that it shares.
  std::span<std::byte> ring_memory;
  int core = -1;  // that the thread is bound to; -1: any
  // Longest time that a put may find no room or stay incomplete.
  std::chrono::milliseconds timeout{30000};
  std::chrono::milliseconds idle_before_sleep{1};
  std::chrono::microseconds max_sleep{1000};
};

struct ProxyStatistics {
  std::uint64_t num_commands = 0;
  std::uint64_t num_refusals = 0;  // by the transport
  std::uint64_t num_sleeps = 0;
};

// push() and await_completed() belong to the lane's one producer; all other functions are
// thread-safe. The first error of
// the thread ends it; all waits, and all later calls of any thread, throw that error. Makes no CUDA
// call. The destructor drops commands that are not complete.
class Proxy {
 public:
  // Throws Error(kInvalidArgument) naming each field that is out of range.
  Proxy(std::unique_ptr<Transport> transport, const ProxyConfig& config);
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  // Waits for a free slot. Returns the command's position, counted by lane from 0.
  std::uint64_t push(std::uint32_t lane, const ProxyCommand& command, const Deadline& deadline);
  // Until the source ranges of all commands of the lane up to `position` may be reused.
  void await_completed(std::uint32_t lane, std::uint64_t position, const Deadline& deadline);
  void await_arrivals(std::span<const ArrivalWait> waits, const Deadline& deadline);
  // Runs `action` on the proxy's thread, the only one that may use the transport, and throws what
  // it throws. The deadline is for its beginning: once begun, it is waited for.
  void run(const std::function<void(Transport&)>& action, const Deadline& deadline);

  void check() const { park_.throw_if_occupied(); }
  const ArrivalCounters& arrivals() const { return transport_->arrivals(); }
  std::byte* ring_memory() const { return rings_; }
  ProxyStatistics statistics() const;

 private:
  struct Action {
    const std::function<void(Transport&)>* function = nullptr;
    std::exception_ptr error;
    std::atomic<bool> done{false};
  };

  void serve();
  int serve_round();
  void serve_action();
  bool has_work() const;
  void rest(int num_events);
  void bind_to_core(int core);
  LaneWriter& writer(std::uint32_t lane, const char* call);
  // Returns false at the deadline.
  bool wait_until(const std::function<bool()>& holds, const Deadline& deadline);

  ProxyConfig config_;
  std::unique_ptr<Transport> transport_;
  RingMemory own_memory_;
  std::byte* rings_ = nullptr;
  std::vector<LaneWriter> writers_;
  std::unique_ptr<LaneDrain> drain_;  // the thread's
  ErrorPark park_;
  Doorbell doorbell_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> num_waiters_{0};
  std::atomic<std::uint64_t> num_sleeps_{0};
  std::optional<Deadline> awake_until_;  // the thread's
  std::mutex action_mutex_;              // one action at a time
  std::atomic<Action*> action_{nullptr};
  std::thread thread_;
};

}  // namespace moelink
