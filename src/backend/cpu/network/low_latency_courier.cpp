// Cuts messages into parts, and puts the parts where they belong.
#include "backend/cpu/network/low_latency_courier.hpp"

#include <algorithm>
#include <cstring>

#include "backend/cpu/network/message_fit.hpp"
#include "base/check.hpp"

namespace moelink {
namespace {

constexpr MessageChannel kChannel = MessageChannel::kLowLatency;

}  // namespace

void LowLatencyCourier::require_fit(Operation operation, std::size_t entry_bytes,
                                    std::size_t row_bytes) const {
  const LowLatencyPart part{.header = {},
                            .entry_bytes = static_cast<std::uint32_t>(entry_bytes),
                            .row_bytes = static_cast<std::uint32_t>(row_bytes)};
  moelink::require_fit(context_, kChannel, operation, part);
}

void LowLatencyCourier::send(Rank peer, const Letter& letter) {
  try {
    send_parts(peer, letter);
  } catch (const Error& error) {
    if (context_.survival == Survival::kRaise) throw;
    mask_lost(context_.signals->masks(), context_.rank, peer, error);
  }
}

void LowLatencyCourier::send_parts(Rank peer, const Letter& letter) {
  const auto operation = static_cast<Operation>(letter.header.operation);
  const Stage stage = operation == Operation::kLowLatencyDispatch ? Stage::kSend : Stage::kSendBack;
  // Faults are known by the number of an operation that exchanges: this one is after all of those.
  RelayWait wait(context_, operation, stage, context_.epoch);
  LowLatencyPart part{.header = letter.header,
                      .entry_bytes = static_cast<std::uint32_t>(letter.entry_bytes),
                      .row_bytes = static_cast<std::uint32_t>(letter.row_bytes)};
  do {
    const std::span<std::byte> slot = await_slot(peer, wait);
    const std::uint32_t num_left = letter.header.num_tokens - part.first;
    part.header.num_tokens =
        std::min(num_left, static_cast<std::uint32_t>(part.capacity(slot.size())));
    part.is_last = part.header.num_tokens == num_left ? 1 : 0;
    std::memcpy(slot.data(), &part, sizeof(part));
    for (std::size_t i = 0; i < part.header.num_tokens; ++i) {
      letter.write(part.first + i, slot.data() + part.entry_offset(i),
                   slot.data() + part.row_offset(i));
    }
    context_.network->send(kChannel, peer, part.total_bytes(), wait.deadline());
    part.first += part.header.num_tokens;
  } while (part.is_last == 0);
}

std::span<std::byte> LowLatencyCourier::await_slot(Rank peer, RelayWait& wait) {
  for (;;) {
    const std::span<std::byte> slot = context_.network->try_slot(kChannel, peer);
    if (!slot.empty()) return slot;
    if (context_.remote->pump() > 0) {
      wait.note_progress();
    } else {
      wait.pause(peer, "made room for a message");
    }
  }
}

int LowLatencyCourier::deliver() {
  int num_delivered = 0;
  for (Rank source(0); source.value() < context_.num_ranks(); source = source.next()) {
    if (!context_.control->is_near(source)) num_delivered += deliver_from(source);
  }
  return num_delivered;
}

// Whether what belongs to an operation can be forgotten.
bool LowLatencyCourier::is_old(Epoch epoch) const {
  return epoch < low_latency_.first_epoch || epoch <= low_latency_.void_epoch;
}

int LowLatencyCourier::deliver_from(Rank source) {
  int num_delivered = 0;
  while (const std::byte* content = context_.network->peek(kChannel, source)) {
    LowLatencyPart part;
    std::memcpy(&part, content, sizeof(part));
    const bool old = is_old(Epoch(part.header.epoch));
    if (!old && !can_deliver()) break;  // this rank is about to open the area
    if (!old) {
      check_part(source, part, context_.network->peeked_bytes(kChannel, source));
      deliver_part(source, part, content);
    }
    context_.network->release(kChannel, source, Deadline::after(context_.timeout));
    ++num_delivered;
  }
  return num_delivered;
}

void LowLatencyCourier::check_part(Rank source, const LowLatencyPart& part,
                                   std::size_t num_bytes) const {
  const LowLatencyArea& area = low_latency_.area;
  const std::size_t most = static_cast<std::size_t>(area.max_tokens) *
                           static_cast<std::size_t>(std::max(1, area.num_topk));
  const bool fits = part.total_bytes() == num_bytes && part.row_bytes <= area.row_stride() &&
                    part.entry_bytes <= area.entry_stride() &&
                    std::size_t{part.first} + part.header.num_tokens <= most;
  if (fits) return;
  fail(
      ErrorCode::kInternal,
      "low latency (rank {}): rank {} sent a message of {} bytes for tokens {} to {} that does not "
      "fit the area",
      context_.rank.value(), source.value(), num_bytes, part.first,
      part.first + part.header.num_tokens);
}

void LowLatencyCourier::deliver_part(Rank source, const LowLatencyPart& part,
                                     const std::byte* content) {
  const Epoch epoch(part.header.epoch);
  if (part.header.operation == static_cast<std::uint32_t>(Operation::kLowLatencyDispatch)) {
    take_tokens(source, part, content);
  } else {
    take_returns(source, part, content);
  }
  if (part.is_last == 0) return;
  LowLatencyHeader& header = header_of(context_, low_latency_, epoch, source);
  header = part.header;
  header.num_tokens = part.first + part.header.num_tokens;
  context_.control->signal(context_.rank, SignalChannel::kLowLatencySent, source)
      .store(SignalValue::of(epoch, kDone).word(), std::memory_order_release);
}

void LowLatencyCourier::take_tokens(Rank source, const LowLatencyPart& part,
                                    const std::byte* content) {
  const LowLatencyArea& area = low_latency_.area;
  const Epoch epoch(part.header.epoch);
  for (std::size_t i = 0; i < part.header.num_tokens; ++i) {
    const std::byte* const entry = content + part.entry_offset(i);
    std::int32_t token = 0;
    std::memcpy(&token, entry, sizeof(token));
    const std::size_t place = part.first + i;
    if (token < 0 || token >= area.max_tokens ||
        place >= static_cast<std::size_t>(area.max_tokens)) {
      fail(ErrorCode::kInternal,
           "low latency (rank {}): rank {} sent token {}, expected less than {}",
           context_.rank.value(), source.value(), token, area.max_tokens);
    }
    std::memcpy(low_latency_.at(context_, context_.rank, area.entry_offset(epoch, source, place)),
                entry, part.entry_bytes);
    std::memcpy(low_latency_.far_outbox(source, epoch) +
                    static_cast<std::size_t>(token) * area.row_stride(),
                content + part.row_offset(i), part.row_bytes);
  }
}

void LowLatencyCourier::take_returns(Rank source, const LowLatencyPart& part,
                                     const std::byte* content) {
  const LowLatencyArea& area = low_latency_.area;
  for (std::size_t i = 0; i < part.header.num_tokens; ++i) {
    std::int32_t place[2] = {};  // token, k
    std::memcpy(place, content + part.entry_offset(i), sizeof(place));
    if (place[0] < 0 || place[0] >= area.max_tokens || place[1] < 0 || place[1] >= area.num_topk) {
      fail(ErrorCode::kInternal,
           "low latency (rank {}): rank {} sent back token {} for selection {}, expected less than "
           "{} and {}",
           context_.rank.value(), source.value(), place[0], place[1], area.max_tokens,
           area.num_topk);
    }
    const std::size_t offset =
        area.return_offset(Epoch(part.header.epoch), TokenIdx(place[0]), place[1]);
    std::memcpy(low_latency_.at(context_, context_.rank, offset), content + part.row_offset(i),
                part.row_bytes);
  }
}

}  // namespace moelink
