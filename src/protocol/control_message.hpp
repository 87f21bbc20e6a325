// What ranks of different nodes tell each other, as they share no control area.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "protocol/control_layout.hpp"
#include "protocol/counts.hpp"
#include "protocol/signal.hpp"

namespace moelink {

enum class ControlKind : std::uint32_t {
  kSignal,    // nothing more
  kExchange,  // an ExchangeBlock and a count row
  kMasks,     // a byte per rank, as mask_flag() has them
  kFault,     // a FaultRecord
};

// Starts the content of a message on MessageChannel::kControl. The receiver puts what follows into
// its own control area, and then the signal.
struct ControlMessage {
  ControlKind kind = ControlKind::kSignal;
  SignalChannel channel{};
  std::uint64_t value = 0;  // SignalValue
  std::uint64_t bytes = 0;  // that follow
  // Messages that the sender had sent on MessageChannel::kLowLatency before: they count first.
  std::uint64_t num_low_latency = 0;
};
static_assert(sizeof(ControlMessage) == 32);

// Of the longest content.
MOELINK_HD constexpr std::size_t max_control_message_bytes(int num_ranks, int max_num_experts) {
  const std::size_t exchange =
      sizeof(ExchangeBlock) +
      CountMatrix::row_length(num_ranks, max_num_experts) * sizeof(std::int32_t);
  const auto masks = static_cast<std::size_t>(num_ranks);
  return sizeof(ControlMessage) + std::max({exchange, masks, sizeof(FaultRecord)});
}

}  // namespace moelink
