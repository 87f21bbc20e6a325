// Whether rows fit the messages between nodes.
#pragma once

#include <cstddef>

#include "backend/cpu/cpu_context.hpp"
#include "base/check.hpp"
#include "moelink/trace.hpp"
#include "protocol/message_ring.hpp"

namespace moelink {

// `message`: says row_bytes and capacity(bytes). Throws Error(kUnsupported) unless one of its rows
// fits a message of the channel.
template <class Message>
void require_fit(const CpuContext& context, MessageChannel channel, Operation operation,
                 const Message& message) {
  const std::size_t limit = context.network->area().ring(channel).capacity();
  if (message.capacity(limit) > 0) return;
  fail(ErrorCode::kUnsupported,
       "{} (rank {}): a row of {} bytes does not fit a message between nodes, expected at most {}",
       operation_name(operation), context.rank.value(), message.row_bytes, limit);
}

}  // namespace moelink
