// Takes commands and keeps count of what is in flight.
#include "proxy/lane_drain.hpp"

#include <utility>

#include "base/check.hpp"

namespace moelink {

namespace {

constexpr int kCommandsPerTurn = 16;  // of one lane, before the next lane has its turn

}  // namespace

Put put_of(const ProxyCommand& command) {
  Put put{.source = LocalRegion(command.source_region),
          .source_offset = command.source_offset,
          .target = PeerRegion(command.target_region),
          .target_offset = command.target_offset,
          .bytes = command.bytes};
  switch (command.kind) {
    case CommandKind::kPut:
      return put;
    case CommandKind::kCountedPut:
      put.arrival = ArrivalKey{Epoch(command.epoch), command.counter};
      return put;
  }
  fail(ErrorCode::kInvalidArgument, "proxy: a command is of kind {}, expected {} or {}",
       static_cast<int>(command.kind), static_cast<int>(CommandKind::kPut),
       static_cast<int>(CommandKind::kCountedPut));
}

ProxyCommand command_of(const Put& put) {
  MOELINK_INVARIANT(put.log2_pieces == 0);
  ProxyCommand command{.source_offset = put.source_offset,
                       .target_offset = put.target_offset,
                       .bytes = put.bytes,
                       .source_region = put.source.value(),
                       .target_region = put.target.value()};
  if (!put.arrival) return command;
  command.kind = CommandKind::kCountedPut;
  command.epoch = put.arrival->epoch.value();
  command.counter = put.arrival->counter;
  return command;
}

LaneDrain::LaneDrain(Transport& transport, std::vector<LaneReader> lanes,
                     std::chrono::milliseconds timeout)
    : transport_(transport), timeout_(timeout) {
  for (LaneReader& reader : lanes) lanes_.push_back({std::move(reader), std::nullopt});
}

int LaneDrain::drain_round() {
  int num_events = transport_.progress();
  for (std::size_t lane = 0; lane < lanes_.size(); ++lane) num_events += drain_lane(lane);
  num_events += report_completions();
  check_stall();
  return num_events;
}

bool LaneDrain::has_work() const {
  if (!in_flight_.empty()) return true;
  for (const Lane& lane : lanes_) {
    if (lane.reader.front() != nullptr) return true;
  }
  return false;
}

int LaneDrain::drain_lane(std::size_t lane_idx) {
  Lane& lane = lanes_[lane_idx];
  int num_taken = 0;
  while (num_taken < kCommandsPerTurn) {
    const ProxyCommand* const command = lane.reader.front();
    if (command == nullptr) break;
    const Put put = put_of(*command);
    if (transport_.try_put(put) == PutResult::kRefused) {
      note_refusal(lane, put);
      break;
    }
    lane.refused_until.reset();
    in_flight_.push_back({transport_.num_accepted(), lane_idx, lane.reader.num_taken(),
                          transport_.regions().peer(put.target).peer});
    lane.reader.pop();
    num_commands_.fetch_add(1, std::memory_order_relaxed);
    ++num_taken;
  }
  return num_taken;
}

void LaneDrain::note_refusal(Lane& lane, const Put& put) {
  num_refusals_.fetch_add(1, std::memory_order_relaxed);
  if (!lane.refused_until) lane.refused_until = Deadline::after(timeout_);
  if (!lane.refused_until->expired()) return;
  fail(ErrorCode::kTimeout,
       "rank {}: proxy, lane {}: command {}, a put of {} bytes to rank {}, found no room for {} ms",
       transport_.rank().value(), lane.reader.lane(), lane.reader.num_taken(), put.bytes,
       transport_.regions().peer(put.target).peer.value(), timeout_.count());
}

int LaneDrain::report_completions() {
  int num_completed = 0;
  while (!in_flight_.empty() && in_flight_.front().put_number <= transport_.completed_through()) {
    const InFlight& oldest = in_flight_.front();
    transport_.check_peer(oldest.peer, "proxy");
    lanes_[oldest.lane].reader.publish_completed(oldest.position + 1);
    in_flight_.pop_front();
    ++num_completed;
  }
  if (num_completed > 0 || in_flight_.empty()) completion_due_.reset();
  return num_completed;
}

void LaneDrain::check_stall() {
  if (in_flight_.empty()) return;
  if (!completion_due_) completion_due_ = Deadline::after(timeout_);
  if (!completion_due_->expired()) return;
  const InFlight& oldest = in_flight_.front();
  fail(ErrorCode::kTimeout,
       "rank {}: proxy, lane {}: command {}, a put to rank {}, is not complete after {} ms",
       transport_.rank().value(), lanes_[oldest.lane].reader.lane(), oldest.position,
       oldest.peer.value(), timeout_.count());
}

void LaneDrain::publish_failure() {
  for (Lane& lane : lanes_) lane.reader.publish_failure();
}

}  // namespace moelink
