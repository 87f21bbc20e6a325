// Hands commands over: the turn of a slot publishes it, the number taken frees it.
#include "proxy/lane.hpp"

namespace moelink {

bool LaneWriter::try_push(const ProxyCommand& command) {
  const RingLayout& layout = view_.layout();
  if (layout.num_credits(num_pushed_, num_taken_) == 0) {
    num_taken_ = std::atomic_ref(view_.progress().num_taken).load(std::memory_order_acquire);
    if (layout.num_credits(num_pushed_, num_taken_) == 0) return false;
  }
  ProxyCommand& slot = view_.slot(num_pushed_);
  slot.source_offset = command.source_offset;
  slot.target_offset = command.target_offset;
  slot.bytes = command.bytes;
  slot.epoch = command.epoch;
  slot.counter = command.counter;
  slot.source_region = command.source_region;
  slot.target_region = command.target_region;
  slot.kind = command.kind;
  std::atomic_ref(slot.turn).store(turn_of(num_pushed_), std::memory_order_release);
  ++num_pushed_;
  return true;
}

const ProxyCommand* LaneReader::front() const {
  ProxyCommand& slot = view_.slot(num_taken_);
  const std::uint64_t turn = std::atomic_ref(slot.turn).load(std::memory_order_acquire);
  return turn == turn_of(num_taken_) ? &slot : nullptr;
}

void LaneReader::pop() {
  ++num_taken_;
  std::atomic_ref(view_.progress().num_taken).store(num_taken_, std::memory_order_release);
}

void LaneReader::publish_completed(std::uint64_t num_completed) {
  std::atomic_ref(view_.progress().num_completed).store(num_completed, std::memory_order_release);
}

void LaneReader::publish_failure() {
  std::atomic_ref(view_.progress().failed).store(1, std::memory_order_release);
}

}  // namespace moelink
