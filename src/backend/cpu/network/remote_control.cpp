// Messages on the control channel, and what they become at the receiver.
#include "backend/cpu/network/remote_control.hpp"

#include <algorithm>
#include <cstring>

#include "backend/cpu/network/low_latency_courier.hpp"
#include "base/check.hpp"
#include "transport/backoff.hpp"

namespace moelink {
namespace {

constexpr MessageChannel kChannel = MessageChannel::kControl;
constexpr std::chrono::milliseconds kFaultTimeout{1000};
// A process that has died is found out this much later, if its network tells.
constexpr std::chrono::milliseconds kProbeInterval{500};
constexpr int kRoundsPerLook = 256;

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

template <class Send>
void RemoteControl::guard(Rank peer, const Send& send) {
  try {
    send();
  } catch (const Error& error) {
    // Whoever waits for a lost peer finds out, and can say what for.
    if (masks_.is_masked(peer) || error.code() == ErrorCode::kPeerLost) return;
    if (survival_ == Survival::kRaise) throw;
    mask_lost(masks_, control_->rank(), peer, error);
  }
}

void RemoteControl::send_signal(Rank peer, SignalChannel channel, SignalValue value) {
  const ControlMessage message{
      .kind = ControlKind::kSignal, .channel = channel, .value = value.word()};
  guard(peer, [&] { send(peer, message, {}, {}, Deadline::after(timeout_)); });
}

void RemoteControl::send_exchange(Rank peer, Epoch epoch, const ExchangeBlock& block,
                                  std::span<const std::int32_t> count_row) {
  const ControlMessage message{.kind = ControlKind::kExchange,
                               .channel = SignalChannel::kExchanged,
                               .value = SignalValue::of(epoch, kDone).word(),
                               .bytes = sizeof(block) + count_row.size_bytes()};
  guard(peer, [&] {
    send(peer, message, bytes_of(block), std::as_bytes(count_row), Deadline::after(timeout_));
  });
}

void RemoteControl::send_masks(Rank peer, SignalValue round) {
  const auto num_ranks = static_cast<std::size_t>(control_->num_ranks());
  std::vector<std::uint8_t> flags(num_ranks);
  for (Rank rank(0); rank.value() < control_->num_ranks(); rank = rank.next()) {
    flags[rank.index()] =
        control_->mask_flag(control_->rank(), round.epoch(), control_->rank(), rank)
            .load(std::memory_order_relaxed);
  }
  const ControlMessage message{.kind = ControlKind::kMasks,
                               .channel = SignalChannel::kMasksPublished,
                               .value = round.word(),
                               .bytes = num_ranks};
  guard(peer, [&] {
    send(peer, message, std::as_bytes(std::span(flags)), {}, Deadline::after(timeout_));
  });
}

void RemoteControl::send_fault() noexcept {
  const Deadline deadline = Deadline::after(std::min(timeout_, kFaultTimeout));
  const ControlMessage message{.kind = ControlKind::kFault, .bytes = sizeof(FaultRecord)};
  for (Rank peer(0); peer.value() < control_->num_ranks(); peer = peer.next()) {
    if (control_->is_near(peer) || masks_.is_masked(peer)) continue;
    try {
      send(peer, message, bytes_of(control_->own_fault()), {}, deadline);
    } catch (const std::exception&) {  // it is gone itself, or will find out by its deadline
    }
  }
  try {
    network_.flush(deadline);
  } catch (const std::exception&) {
  }
}

std::span<std::byte> RemoteControl::await_slot(Rank peer, const Deadline& deadline) {
  Backoff backoff;
  for (int round = 1;; ++round) {
    const std::span<std::byte> slot = network_.try_slot(kChannel, peer);
    if (!slot.empty()) return slot;
    if (pump() > 0) {
      backoff.reset();
    } else {
      backoff.pause();
    }
    if (round % kRoundsPerLook != 0) continue;
    look_after(peer, "send");
    if (!deadline.expired()) continue;
    fail(ErrorCode::kTimeout, "rank {}: rank {} has not taken {} control messages within {} ms",
         control_->rank().value(), peer.value(), network_.area().ring(kChannel).num_slots,
         deadline.span().count());
  }
}

void RemoteControl::send(Rank peer, ControlMessage message, std::span<const std::byte> first,
                         std::span<const std::byte> second, const Deadline& deadline) {
  message.num_low_latency = network_.num_sent(MessageChannel::kLowLatency, peer);
  std::byte* out = await_slot(peer, deadline).data();
  for (const std::span<const std::byte> part : {bytes_of(message), first, second}) {
    if (!part.empty()) std::memcpy(out, part.data(), part.size());
    out += part.size();
  }
  network_.send(kChannel, peer, sizeof(message) + first.size() + second.size(), deadline);
}

int RemoteControl::pump() {
  int num_events = network_.progress();
  // Low latency messages first: a later control message tells that they have all come.
  if (courier_ != nullptr) num_events += courier_->deliver();
  for (Rank source(0); source.value() < control_->num_ranks(); source = source.next()) {
    if (control_->is_near(source)) continue;
    guard(source, [&] { num_events += deliver_from(source); });
  }
  return num_events;
}

int RemoteControl::deliver_from(Rank source) {
  int num_delivered = 0;
  while (const std::byte* content = network_.peek(kChannel, source)) {
    ControlMessage message;
    std::memcpy(&message, content, sizeof(message));
    const std::uint64_t num_seen = network_.num_released(MessageChannel::kLowLatency, source);
    if (message.num_low_latency > num_seen && courier_->can_deliver()) break;
    deliver(source, message, content + sizeof(message));
    network_.release(kChannel, source, Deadline::after(timeout_));
    ++num_delivered;
  }
  return num_delivered;
}

void RemoteControl::deliver(Rank source, const ControlMessage& message, const std::byte* content) {
  const Rank self = control_->rank();
  const SignalValue value(message.value);
  switch (message.kind) {
    case ControlKind::kSignal:
      break;
    case ControlKind::kExchange:
      std::memcpy(&control_->exchange(self, value.epoch(), source), content, message.bytes);
      break;
    case ControlKind::kMasks:
      for (Rank rank(0); rank.value() < control_->num_ranks(); rank = rank.next()) {
        control_->mask_flag(self, value.epoch(), source, rank)
            .store(static_cast<std::uint8_t>(content[rank.index()]), std::memory_order_relaxed);
      }
      break;
    case ControlKind::kFault: {
      FaultRecord record;
      std::memcpy(&record, content, sizeof(record));
      control_->keep_fault(source, record);
      return;
    }
  }
  control_->signal(self, message.channel, source).store(message.value, std::memory_order_release);
}

void RemoteControl::flush() {
  if (survival_ == Survival::kRaise) return network_.flush(Deadline::after(timeout_));
  try {  // what is meant for a lost rank fails; it is masked when it is missed
    network_.flush(Deadline::after(timeout_));
  } catch (const Error&) {
  }
}

void RemoteControl::look_after(Rank peer, const char* stage) {
  if (control_->is_near(peer)) return;
  network_.check_peer(peer, stage);
  const auto now = std::chrono::steady_clock::now();
  if (now < last_probe_ + kProbeInterval) return;
  last_probe_ = now;
  network_.probe(peer);
}

}  // namespace moelink
