// Which of two offered places takes a block whose size is known only after the exchange.
#pragma once

#include <cstddef>

#include "moelink/host_device.hpp"
#include "protocol/control_layout.hpp"

namespace moelink {

// The expected place if the block fits there, else the largest one; an empty span if it fits
// neither. Evaluated alike by the receiver and by all senders.
MOELINK_HD constexpr WireSpan choose_place(const WireSpan& expected, const WireSpan& largest,
                                           std::size_t needed_bytes) {
  if (needed_bytes <= expected.bytes) return expected;
  if (needed_bytes <= largest.bytes) return largest;
  return WireSpan{0, 0};
}

}  // namespace moelink
