// The proxy's thread, and the waits of those that use it.
#include "proxy/proxy.hpp"

#include <pthread.h>
#include <sched.h>

#include <bit>
#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "transport/backoff.hpp"

namespace moelink {

namespace {

constexpr int kLooksPerPeerCheck = 256;

void check_proxy_config(const Transport& transport, const ProxyConfig& config) {
  Violations violations("open proxy", transport.rank());
  const RingLayout& rings = config.rings;
  violations.require(rings.num_lanes >= 1, "num_lanes is {}, expected at least 1", rings.num_lanes);
  violations.require(std::has_single_bit(rings.num_slots),
                     "num_slots is {}, expected a power of two", rings.num_slots);
  violations.require(config.ring_memory.empty() || config.ring_memory.size() >= rings.total_bytes(),
                     "ring_memory has {} bytes, expected {}", config.ring_memory.size(),
                     rings.total_bytes());
  const auto address = reinterpret_cast<std::uintptr_t>(config.ring_memory.data());
  violations.require(address % alignof(ProxyCommand) == 0,
                     "ring_memory begins at {:#x}, expected a multiple of {}", address,
                     alignof(ProxyCommand));
  violations.require(config.core >= -1 && config.core < CPU_SETSIZE,
                     "core is {}, expected -1 to {}", config.core, CPU_SETSIZE - 1);
  violations.require(config.timeout.count() > 0, "timeout is {} ms, expected more than 0",
                     config.timeout.count());
  violations.throw_if_any();
}

// While it lives, the proxy does not sleep: what is waited for may come at any moment.
class Waiting {
 public:
  explicit Waiting(std::atomic<int>& num_waiters) : num_waiters_(num_waiters) {
    num_waiters_.fetch_add(1);
  }
  ~Waiting() { num_waiters_.fetch_sub(1); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  std::atomic<int>& num_waiters_;
};

}  // namespace

Proxy::Proxy(std::unique_ptr<Transport> transport, const ProxyConfig& config)
    : config_(config), transport_(std::move(transport)) {
  check_proxy_config(*transport_, config);
  if (config.ring_memory.empty()) own_memory_ = RingMemory(config.rings.total_bytes());
  rings_ = config.ring_memory.empty() ? own_memory_.data() : config.ring_memory.data();
  std::vector<LaneReader> readers;
  for (std::uint32_t lane = 0; lane < config.rings.num_lanes; ++lane) {
    const LaneView view(rings_, config.rings, lane);
    writers_.emplace_back(view);
    readers.emplace_back(view);
  }
  drain_ = std::make_unique<LaneDrain>(*transport_, std::move(readers), config.timeout);
  thread_ = std::thread([this] { serve(); });
}

Proxy::~Proxy() {
  stopping_.store(true);
  doorbell_.ring();
  thread_.join();
}

void Proxy::bind_to_core(int core) {
  if (core < 0) return;
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(static_cast<std::size_t>(core), &cores);
  const int result = ::pthread_setaffinity_np(::pthread_self(), sizeof(cores), &cores);
  if (result == 0) return;
  log(LogLevel::kWarning, "rank {}: the proxy cannot be bound to core {} (errno {}), it stays free",
      transport_->rank().value(), core, result);
}

void Proxy::serve() {
  bind_to_core(config_.core);
  try {
    while (!stopping_.load(std::memory_order_relaxed)) rest(serve_round());
  } catch (const Error& error) {
    park_.park(error);
  } catch (const std::exception& error) {
    park_.park(Error(ErrorCode::kInternal, error.what()));
  }
  if (!park_.occupied()) return;
  drain_->publish_failure();
  log(LogLevel::kError, "the proxy of rank {} has stopped: {}", transport_->rank().value(),
      park_.text());
}

int Proxy::serve_round() {
  serve_action();
  return drain_->drain_round();
}

void Proxy::serve_action() {
  Action* const action = action_.exchange(nullptr, std::memory_order_acquire);
  if (action == nullptr) return;
  try {
    (*action->function)(*transport_);
  } catch (...) {
    action->error = std::current_exception();
  }
  action->done.store(true, std::memory_order_release);
}

bool Proxy::has_work() const {
  return stopping_.load() || num_waiters_.load() > 0 || drain_->has_work();
}

void Proxy::rest(int num_events) {
  if (num_events > 0 || has_work()) {
    awake_until_.reset();
    // Ranks may share cores: nothing happened, so others may have more to do.
    if (num_events == 0) std::this_thread::yield();
    return;
  }
  if (!awake_until_) awake_until_ = Deadline::after(config_.idle_before_sleep);
  if (!awake_until_->expired()) return;
  num_sleeps_.fetch_add(1, std::memory_order_relaxed);
  doorbell_.sleep(config_.max_sleep, [this] { return has_work(); });
}

LaneWriter& Proxy::writer(std::uint32_t lane, const char* call) {
  if (lane >= writers_.size()) {
    fail(ErrorCode::kInvalidArgument, "{} (rank {}): lane is {}, expected 0 to {}", call,
         transport_->rank().value(), lane, writers_.size() - 1);
  }
  return writers_[lane];
}

bool Proxy::wait_until(const std::function<bool()>& holds, const Deadline& deadline) {
  const Waiting waiting(num_waiters_);
  doorbell_.ring();
  Backoff backoff;
  while (!holds()) {
    check();
    if (deadline.expired()) return holds();
    backoff.pause();
  }
  return true;
}

std::uint64_t Proxy::push(std::uint32_t lane, const ProxyCommand& command,
                          const Deadline& deadline) {
  check();
  LaneWriter& own = writer(lane, "push");
  if (!own.try_push(command) && !wait_until([&] { return own.try_push(command); }, deadline)) {
    fail(ErrorCode::kTimeout, "push (rank {}): lane {} had none of its {} slots free for {} ms",
         transport_->rank().value(), lane, config_.rings.num_slots, deadline.span().count());
  }
  doorbell_.ring();
  return own.num_pushed() - 1;
}

void Proxy::await_completed(std::uint32_t lane, std::uint64_t position, const Deadline& deadline) {
  check();
  const LaneWriter& own = writer(lane, "await_completed");
  if (position >= own.num_pushed()) {
    fail(ErrorCode::kInvalidArgument,
         "await_completed (rank {}): position is {}, but lane {} has had {} commands",
         transport_->rank().value(), position, lane, own.num_pushed());
  }
  if (wait_until([&] { return own.num_completed() > position; }, deadline)) return;
  fail(ErrorCode::kTimeout,
       "await_completed (rank {}): lane {}: command {} is not complete after {} ms, {} are",
       transport_->rank().value(), lane, position, deadline.span().count(), own.num_completed());
}

void Proxy::await_arrivals(std::span<const ArrivalWait> waits, const Deadline& deadline) {
  check();
  for (const ArrivalWait& wait : waits) {
    int num_looks = 0;
    const auto arrived = [&] {
      if (arrivals().seen(wait.key, wait.source) >= wait.expected) return true;
      if (++num_looks % kLooksPerPeerCheck == 0) transport_->check_alive(wait.source, wait.stage);
      return false;
    };
    if (!wait_until(arrived, deadline)) transport_->fail_missing_arrival(wait, deadline);
  }
}

void Proxy::run(const std::function<void(Transport&)>& function, const Deadline& deadline) {
  const std::lock_guard lock(action_mutex_);
  check();
  Action action;
  action.function = &function;
  action_.store(&action, std::memory_order_release);
  const auto take_back = [&] {  // false: the thread has it, and will be done with it
    Action* expected = &action;
    return action_.compare_exchange_strong(expected, nullptr);
  };
  const auto done = [&] { return action.done.load(std::memory_order_acquire); };
  bool in_time = false;
  std::optional<Error> parked;
  try {
    in_time = wait_until(done, deadline);
  } catch (const Error& error) {
    parked = error;
  }
  if (!in_time && take_back()) {
    if (parked) throw Error(*parked);
    fail(ErrorCode::kTimeout, "run (rank {}): the proxy did not come to it within {} ms",
         transport_->rank().value(), deadline.span().count());
  }
  Backoff backoff;  // what has begun ends by its own deadlines
  while (!done()) backoff.pause();
  if (action.error) std::rethrow_exception(action.error);
}

ProxyStatistics Proxy::statistics() const {
  return {.num_commands = drain_->num_commands(),
          .num_refusals = drain_->num_refusals(),
          .num_sleeps = num_sleeps_.load(std::memory_order_relaxed)};
}

}  // namespace moelink
