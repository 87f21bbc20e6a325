// Waiting: look, spin or yield a little, then sleep on the doorbell in short slices.
#include "backend/cpu/signal_board.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>
#include <string>

#include "backend/cpu/network/remote_control.hpp"
#include "base/check.hpp"
#include "base/pause.hpp"

namespace moelink {
namespace {

// How long a sleeper trusts the doorbell before it looks after its peers.
constexpr std::chrono::milliseconds kSleepSlice{5};

// With a core for every rank, polling this often (about 20 us) beats a sleep and a wake-up.
constexpr int kSpinsWithOwnCore = 2000;
// With fewer cores than ranks, the core is better given to a peer.
constexpr int kYieldsWithSharedCore = 8;

// Looks at the network between two looks at the peers: about 10 ms once the wait has become long.
constexpr int kRoundsPerLook = 200;

void futex_wait(std::uint32_t& word, std::uint32_t expected, std::chrono::nanoseconds limit) {
  const timespec timeout{static_cast<time_t>(limit.count() / 1'000'000'000),
                         static_cast<long>(limit.count() % 1'000'000'000)};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
}

void futex_wake_all(std::uint32_t& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool is_low_latency(SignalChannel channel) {
  return channel == SignalChannel::kLowLatencySent ||
         channel == SignalChannel::kLowLatencyReceivedEven ||
         channel == SignalChannel::kLowLatencyReceivedOdd;
}

// Signals that mean something only between ranks that share memory.
bool is_about_memory(SignalChannel channel) {
  return channel == SignalChannel::kDelivered || channel == SignalChannel::kStaged ||
         channel == SignalChannel::kConsumed;
}

bool is_sent_with_content(SignalChannel channel) {
  return channel == SignalChannel::kExchanged || channel == SignalChannel::kMasksPublished;
}

}  // namespace

SignalBoard::SignalBoard(std::shared_ptr<ControlArea> control, Cores cores, Survival survival)
    : control_(std::move(control)),
      masks_(control_->num_ranks()),
      survival_(survival),
      cores_(cores),
      num_spins_(cores == Cores::kShared ? -kYieldsWithSharedCore : kSpinsWithOwnCore) {}

void SignalBoard::put(Rank peer, SignalChannel channel, SignalValue value) {
  if (!control_->is_near(peer)) {
    if (!is_about_memory(channel) && !is_sent_with_content(channel))
      remote_->send_signal(peer, channel, value);
    return;
  }
  // Release: publishes all rows, counts or reads of this rank so far to wait() of `peer`.
  control_->signal(peer, channel, control_->rank()).store(value.word(), std::memory_order_release);
  const std::uint32_t awaited = ring(peer);
  if (awaited == awaited_code(channel, control_->rank()))
    futex_wake_all(control_->doorbell(peer).rings);
}

void SignalBoard::put_all(SignalChannel channel, SignalValue value) {
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (peer != control_->rank() && !masks_.is_masked(peer)) put(peer, channel, value);
  }
}

std::uint32_t SignalBoard::awaited_code(SignalChannel channel, Rank source) const {
  return 1 + static_cast<std::uint32_t>(control_->layout().signal_row(channel, source));
}

std::uint32_t SignalBoard::ring(Rank peer) {
  Doorbell& bell = control_->doorbell(peer);
  // Sequentially consistent, so that either the sleeper sees this ring or we see the sleeper.
  std::atomic_ref(bell.rings).fetch_add(1, std::memory_order_seq_cst);
  return std::atomic_ref(bell.awaited).load(std::memory_order_seq_cst);
}

SignalValue SignalBoard::seen(Rank peer, SignalChannel channel) const {
  const auto word = control_->signal(control_->rank(), channel, peer);
  return SignalValue(word.load(std::memory_order_acquire));
}

bool SignalBoard::reached(Rank peer, SignalChannel channel, SignalValue value) const {
  return value.reached_by(seen(peer, channel).word());
}

bool SignalBoard::reached_soon(Rank peer, SignalChannel channel, SignalValue value) const {
  for (int i = 0; i < num_spins_; ++i) {
    if (reached(peer, channel, value)) return true;
    pause_core();
  }
  for (int i = num_spins_; i < 0; ++i) {
    if (reached(peer, channel, value)) return true;
    sched_yield();
  }
  return reached(peer, channel, value);
}

bool SignalBoard::wait(Rank peer, SignalChannel channel, SignalValue value,
                       const WaitContext& context) {
  if (peer == control_->rank()) return true;
  if (masks_.is_masked(peer)) return false;
  if (!control_->is_near(peer) && is_about_memory(channel)) return true;
  try {
    if (remote_ != nullptr) {
      await_with_network(peer, channel, value, context);
    } else {
      await_near(peer, channel, value, context);
    }
  } catch (const Error& error) {
    if (survival_ == Survival::kRaise || error.code() == ErrorCode::kInvalidArgument) throw;
    mask_lost(masks_, control_->rank(), peer, error);
    return false;
  }
  return !masks_.is_masked(peer);
}

void SignalBoard::await_near(Rank peer, SignalChannel channel, SignalValue value,
                             const WaitContext& context) {
  if (reached_soon(peer, channel, value)) return;
  while (!reached(peer, channel, value)) {
    sleep_until_rung(peer, channel, value, context);
    if (context.meanwhile != nullptr) (*context.meanwhile)();
  }
}

// Nobody else makes the network move, so this cannot sleep for long.
void SignalBoard::await_with_network(Rank peer, SignalChannel channel, SignalValue value,
                                     const WaitContext& context) {
  Backoff backoff(cores_);
  for (int round = 1; !reached(peer, channel, value); ++round) {
    if (remote_->pump() > 0) {
      backoff.reset();
    } else {
      backoff.pause();
    }
    if (masks_.is_masked(peer)) return;  // it has been lost on the way
    if (round % kRoundsPerLook != 0 || reached(peer, channel, value)) continue;
    check_peers(peer, channel, value, context);
    remote_->look_after(peer, stage_name(context.stage));
    if (context.meanwhile != nullptr) (*context.meanwhile)();
  }
}

void SignalBoard::wait_all(SignalChannel channel, SignalValue value, const WaitContext& context) {
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    wait(peer, channel, value, context);
  }
}

void SignalBoard::sleep_until_rung(Rank peer, SignalChannel channel, SignalValue value,
                                   const WaitContext& context) {
  Doorbell& bell = control_->doorbell(control_->rank());
  const std::atomic_ref awaited(bell.awaited);
  awaited.store(awaited_code(channel, peer), std::memory_order_seq_cst);
  const std::uint32_t rings = std::atomic_ref(bell.rings).load(std::memory_order_seq_cst);
  if (!reached(peer, channel, value)) {
    futex_wait(bell.rings, rings, context.deadline.remaining(kSleepSlice));
  }
  awaited.store(0, std::memory_order_seq_cst);
  if (!reached(peer, channel, value)) check_peers(peer, channel, value, context);
}

std::string SignalBoard::describe(Rank peer, const WaitContext& context) const {
  return fmt::format("{} (rank {}), stage {}: rank {}", operation_name(context.operation),
                     control_->rank().value(), stage_name(context.stage), peer.value());
}

void SignalBoard::check_faults(Epoch epoch, const WaitContext& context) const {
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (peer == control_->rank() || masks_.is_masked(peer)) continue;
    if (const std::string reason = control_->fault_of(peer, epoch); !reason.empty()) {
      fail(ErrorCode::kPeerLost, "{} gave up: {}", describe(peer, context), reason);
    }
  }
}

void SignalBoard::check_peers(Rank awaited, SignalChannel channel, SignalValue value,
                              const WaitContext& context) const {
  if (survival_ == Survival::kMask || is_low_latency(channel)) {
    check_peer(awaited, channel, value, context);  // the others are judged when they are waited for
  } else {
    check_all_peers(awaited, channel, value, context);
  }
  if (!context.deadline.expired()) return;
  const SignalValue last = seen(awaited, channel);
  fail(ErrorCode::kTimeout,
       "{} did not arrive within {} ms (expected operation {} step {}, seen operation {} step {})",
       describe(awaited, context), context.deadline.span().count(), value.epoch().value(),
       value.progress(), last.epoch().value(), last.progress());
}

void SignalBoard::check_all_peers(Rank awaited, SignalChannel channel, SignalValue value,
                                  const WaitContext& context) const {
  check_faults(value.epoch(), context);
  const SignalValue begun = SignalValue::of(value.epoch(), kDone);
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    const bool judged = peer != control_->rank() && !masks_.is_masked(peer);
    if (!judged || control_->memory().peer_alive(peer)) continue;
    // It may have died after it had sent everything: to this wait, or to other ranks, which say so
    // by giving up if it has not.
    const bool did_its_part = peer == awaited ? reached(peer, channel, value)
                                              : reached(peer, SignalChannel::kExchanged, begun);
    if (!did_its_part) fail(ErrorCode::kPeerLost, "{} has died", describe(peer, context));
  }
}

void SignalBoard::check_peer(Rank peer, SignalChannel channel, SignalValue value,
                             const WaitContext& context) const {
  // Low latency operations are counted apart from those that fault records name.
  const Epoch epoch = is_low_latency(channel) ? Epoch(~std::uint64_t{0}) : value.epoch();
  if (const std::string reason = control_->fault_of(peer, epoch); !reason.empty()) {
    fail(ErrorCode::kPeerLost, "{} gave up: {}", describe(peer, context), reason);
  }
  // A peer may die after it has sent everything that this wait is for.
  if (!control_->memory().peer_alive(peer) && !reached(peer, channel, value)) {
    fail(ErrorCode::kPeerLost, "{} has died", describe(peer, context));
  }
  if (context.exchanged) check_same_call(peer, channel, value, context);
}

void SignalBoard::check_same_call(Rank peer, SignalChannel channel, SignalValue value,
                                  const WaitContext& context) const {
  const Epoch begun = seen(peer, SignalChannel::kExchanged).epoch();
  // In this order: what the peer has signalled before it began that operation is seen now.
  if (begun <= *context.exchanged || reached(peer, channel, value)) return;
  if (begun == context.exchanged->next()) {
    fail(ErrorCode::kInvalidArgument, "{} has begun another operation", describe(peer, context));
  }
  fail(ErrorCode::kPeerLost, "{} has gone on without this rank (it is at operation {}, not {})",
       describe(peer, context), begun.value(), context.exchanged->value());
}

void SignalBoard::raise(const std::string& reason, Epoch first_missed) {
  control_->raise_fault(reason, first_missed);
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (peer == control_->rank() || !control_->is_near(peer)) continue;
    if (ring(peer) != 0) futex_wake_all(control_->doorbell(peer).rings);
  }
  if (remote_ != nullptr) remote_->send_fault();
}

}  // namespace moelink
