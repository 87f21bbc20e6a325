// Waiting: look, spin or yield a little, then sleep on the doorbell in short slices.
#include "backend/cpu/signal_board.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>
#include <string>

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

void futex_wait(std::uint32_t& word, std::uint32_t expected, std::chrono::nanoseconds limit) {
  const timespec timeout{static_cast<time_t>(limit.count() / 1'000'000'000),
                         static_cast<long>(limit.count() % 1'000'000'000)};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
}

void futex_wake_all(std::uint32_t& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

SignalBoard::SignalBoard(std::shared_ptr<ControlArea> control, int num_cores)
    : control_(std::move(control)),
      num_spins_(control_->num_ranks() <= num_cores ? kSpinsWithOwnCore : -kYieldsWithSharedCore) {}

void SignalBoard::put(Rank peer, SignalChannel channel, SignalValue value) {
  // Release: publishes all rows, counts or reads of this rank so far to wait() of `peer`.
  control_->signal(peer, channel, control_->rank()).store(value.word(), std::memory_order_release);
  ring(peer);
}

void SignalBoard::put_all(SignalChannel channel, SignalValue value) {
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (peer != control_->rank()) put(peer, channel, value);
  }
}

void SignalBoard::ring(Rank peer) {
  Doorbell& bell = control_->doorbell(peer);
  // Sequentially consistent, so that either the sleeper sees this ring or we see the sleeper.
  std::atomic_ref(bell.rings).fetch_add(1, std::memory_order_seq_cst);
  if (std::atomic_ref(bell.num_sleepers).load(std::memory_order_seq_cst) != 0) {
    futex_wake_all(bell.rings);
  }
}

bool SignalBoard::reached(Rank peer, SignalChannel channel, SignalValue value) const {
  const auto word = control_->signal(control_->rank(), channel, peer);
  return value.reached_by(word.load(std::memory_order_acquire));
}

void SignalBoard::wait(Rank peer, SignalChannel channel, SignalValue value,
                       const WaitContext& context) {
  if (peer == control_->rank()) return;
  for (int i = 0; i < num_spins_; ++i) {
    if (reached(peer, channel, value)) return;
    pause_core();
  }
  for (int i = num_spins_; i < 0; ++i) {
    if (reached(peer, channel, value)) return;
    sched_yield();
  }
  while (!reached(peer, channel, value)) {
    sleep_until_rung(peer, channel, value, context);
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
  const std::atomic_ref sleepers(bell.num_sleepers);
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  const std::uint32_t rings = std::atomic_ref(bell.rings).load(std::memory_order_seq_cst);
  if (!reached(peer, channel, value)) {
    futex_wait(bell.rings, rings, context.deadline.remaining(kSleepSlice));
  }
  sleepers.fetch_sub(1, std::memory_order_seq_cst);
  if (!reached(peer, channel, value)) check_peers(peer, channel, value, context);
}

std::string SignalBoard::describe(Rank peer, const WaitContext& context) const {
  return fmt::format("{} (rank {}), stage {}: rank {}", operation_name(context.operation),
                     control_->rank().value(), stage_name(context.stage), peer.value());
}

void SignalBoard::check_faults(Epoch epoch, const WaitContext& context) const {
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (peer == control_->rank()) continue;
    if (const std::string reason = control_->fault_of(peer, epoch); !reason.empty()) {
      fail(ErrorCode::kPeerLost, "{} gave up: {}", describe(peer, context), reason);
    }
  }
}

void SignalBoard::check_peers(Rank awaited, SignalChannel channel, SignalValue value,
                              const WaitContext& context) const {
  const Rank self = control_->rank();
  check_faults(value.epoch(), context);
  const SignalValue begun = SignalValue::of(value.epoch(), kDone);
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (peer == self || control_->memory().peer_alive(peer)) continue;
    // It may have died after it had sent everything: to this wait, or to other ranks, which say so by
    // giving up if it has not.
    const bool did_its_part = peer == awaited
                                  ? reached(peer, channel, value)
                                  : reached(peer, SignalChannel::kExchanged, begun);
    if (!did_its_part) fail(ErrorCode::kPeerLost, "{} has died", describe(peer, context));
  }
  if (!context.deadline.expired()) return;
  const SignalValue seen(control_->signal(self, channel, awaited).load(std::memory_order_acquire));
  fail(ErrorCode::kTimeout,
       "{} did not arrive within {} ms (expected operation {} step {}, seen operation {} step {})",
       describe(awaited, context), context.deadline.span().count(), value.epoch().value(), value.progress(),
       seen.epoch().value(), seen.progress());
}

void SignalBoard::raise(const std::string& reason, Epoch first_missed) {
  control_->raise_fault(reason, first_missed);
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (peer != control_->rank()) ring(peer);
  }
}

}  // namespace moelink
