// Opening the area, flow control between its halves, and agreement of the calls.
#include "backend/cpu/low_latency/low_latency_context.hpp"

#include <algorithm>
#include <chrono>

#include "backend/cpu/exchange.hpp"
#include "base/check.hpp"
#include "base/log.hpp"

namespace moelink {
namespace {

// Says what an area is opened for.
ExchangeBlock call_of(const LowLatencyContext& low_latency, const LowLatencyArea& area) {
  ExchangeBlock block{};
  const auto set = [&block](DigestField field, auto value) {
    block.digest.set(field, static_cast<std::int64_t>(value));
  };
  set(DigestField::kOperation, Operation::kOpen);
  set(DigestField::kHiddenBytes, area.hidden * 2);
  set(DigestField::kNumTopk, area.num_topk);
  set(DigestField::kMaxTokens, area.max_tokens);
  block.low_latency_epoch = low_latency.epoch;
  return block;
}

// `peer` is in an exchange while this rank waits for its low latency signal. Takes part in that
// exchange, so that all ranks learn which calls differ and in what. The block offers no area: ranks
// that open one of this very shape learn from that.
[[noreturn]] void disagree(CpuContext& context, Operation operation, Rank peer) {
  LowLatencyContext& low_latency = *context.low_latency;
  exchange_calls(context, operation, call_of(low_latency, low_latency.area), {});
  fail(ErrorCode::kInvalidArgument, "{} (rank {}): rank {} has not begun this operation",
       operation_name(operation), context.rank.value(), peer.value());
}

// As SignalBoard::wait, for a signal of the low latency mode.
bool wait_for(CpuContext& context, Rank peer, SignalChannel channel, SignalValue value,
              WaitContext wait_context) {
  wait_context.exchanged = context.epoch;
  try {
    return context.signals->wait(peer, channel, value, wait_context);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument) throw;
  }
  disagree(context, wait_context.operation, peer);
}

// Some ranks may be in an operation on an area of this shape that this rank no longer has.
void check_offers(CpuContext& context, const Exchange& exchange) {
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (!exchange.present[peer.index()] || exchange.of(peer).spans[0].bytes > 0) continue;
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): rank {} is in an operation that this rank has not begun",
         operation_name(context.low_latency->operation), context.rank.value(), peer.value());
  }
}

// Memory is taken once rows arrive.
void make_far_outboxes(const CpuContext& context, LowLatencyContext& low_latency) {
  const std::size_t bytes = kNumLowLatencyHalves *
                            static_cast<std::size_t>(low_latency.area.max_tokens) *
                            low_latency.area.row_stride();
  low_latency.far_outboxes.clear();
  low_latency.far_outboxes.resize(static_cast<std::size_t>(context.num_ranks()));
  for (Rank rank(0); rank.value() < context.num_ranks(); rank = rank.next()) {
    if (context.control->is_near(rank)) continue;
    low_latency.far_outboxes[rank.index()] = std::make_unique_for_overwrite<std::byte[]>(bytes);
  }
}

}  // namespace

OutstandingSlot::OutstandingSlot(LowLatencyContext& low_latency, Rank rank, Operation operation)
    : count_(low_latency.num_outstanding) {
  if (count_->fetch_add(1) < kMaxOutstandingLowLatency) return;
  count_->fetch_sub(1);
  fail(ErrorCode::kInvalidArgument,
       "{} (rank {}): {} low latency operations are outstanding, expected fewer: call the hook (or "
       "wait for the event) of an earlier one first",
       operation_name(operation), rank.value(), kMaxOutstandingLowLatency);
}

OutstandingSlot::~OutstandingSlot() { count_->fetch_sub(1); }

void ensure_area(CpuContext& context, LowLatencyContext& low_latency, const LowLatencyArea& area) {
  const bool given_up = low_latency.is_given_up();
  if (low_latency.block && !given_up && low_latency.area == area) return;
  if (low_latency.num_outstanding->load() > 1 && !given_up) {
    fail(ErrorCode::kInvalidArgument,
         "low latency (rank {}): the shape changes while an operation is outstanding: call its "
         "hook first",
         context.rank.value());
  }
  low_latency.block.reset();  // until the ranks agree, no area is open
  std::shared_ptr<void> block = context.arena->allocate(area.total_bytes());
  ExchangeBlock mine = call_of(low_latency, area);
  mine.spans[0] = WireSpan{context.arena->offset_of(block.get()), area.total_bytes()};
  const Exchange exchange = exchange_calls(context, low_latency.operation, mine, {});
  context.completed = context.epoch;
  check_offers(context, exchange);
  low_latency.base_of_rank.clear();
  for (const ExchangeBlock& other : exchange.blocks) {
    low_latency.base_of_rank.push_back(other.spans[0].offset);
    // Ranks whose calls differed, or that were left out for a while, have counted differently.
    low_latency.epoch = std::max(low_latency.epoch, other.low_latency_epoch);
  }
  low_latency.block = std::move(block);
  low_latency.area = area;
  make_far_outboxes(context, low_latency);
  low_latency.first_epoch = low_latency.epoch.next();
}

Epoch begin_low_latency(CpuContext& context, LowLatencyContext& low_latency, Operation operation) {
  const Epoch epoch = low_latency.epoch.next();
  const bool half_is_used = epoch.value() >= low_latency.first_epoch.value() + kNumLowLatencyHalves;
  const Epoch last_user(half_is_used ? epoch.value() - kNumLowLatencyHalves : 0);
  if (low_latency.received[epoch.value() % kNumLowLatencyHalves] < last_user) {
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): the operation before the last is still outstanding: call its hook first",
         operation_name(operation), context.rank.value());
  }
  low_latency.epoch = epoch;
  if (!half_is_used) return epoch;
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    wait_for(context, peer, low_latency_received_channel(epoch), SignalValue::of(last_user, kDone),
             context.wait_context(operation, Stage::kSend));
  }
  return epoch;
}

bool await_message(CpuContext& context, Rank peer, Epoch epoch, Operation operation,
                   std::int64_t* wait_cost) {
  if (epoch <= context.low_latency->void_epoch) {
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): its memory has been given up since it was sent, by clean_low_latency or "
         "because the ranks' calls differed: call it again",
         operation_name(operation), context.rank.value());
  }
  if (context.signals->masks().is_masked(peer)) return false;
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = wait_cost == nullptr ? Clock::time_point() : Clock::now();
  const bool arrived =
      wait_for(context, peer, SignalChannel::kLowLatencySent, SignalValue::of(epoch, kDone),
               context.wait_context(operation, Stage::kReceive));
  if (wait_cost != nullptr) {
    wait_cost[peer.index()] += std::chrono::nanoseconds(Clock::now() - start).count();
  }
  return arrived;
}

LowLatencyHeader& header_of(const CpuContext& context, const LowLatencyContext& low_latency,
                            Epoch epoch, Rank source) {
  const std::size_t offset = low_latency.area.message_offset(epoch, source);
  return *reinterpret_cast<LowLatencyHeader*>(low_latency.at(context, context.rank, offset));
}

void acknowledge(CpuContext& context, LowLatencyContext& low_latency, Epoch epoch,
                 const std::vector<bool>& arrived) {
  low_latency.received[epoch.value() % kNumLowLatencyHalves] = epoch;
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (!arrived[peer.index()] || peer == context.rank) continue;
    context.signals->put(peer, low_latency_received_channel(epoch), SignalValue::of(epoch, kDone));
  }
}

namespace {

// Whether two messages of one operation say the same, apart from the number of tokens.
bool agree(const LowLatencyHeader& a, const LowLatencyHeader& b) {
  return a.epoch == b.epoch && a.operation == b.operation && a.format == b.format &&
         a.num_experts == b.num_experts && a.has_weights == b.has_weights;
}

bool all_agree(const CpuContext& context, const LowLatencyContext& low_latency,
               const LowLatencyHeader& mine, const std::vector<bool>& arrived) {
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (!arrived[peer.index()]) continue;
    if (!agree(header_of(context, low_latency, Epoch(mine.epoch), peer), mine)) return false;
  }
  return true;
}

}  // namespace

void check_messages(CpuContext& context, LowLatencyContext& low_latency,
                    const LowLatencyHeader& mine, const std::vector<bool>& arrived) {
  const auto operation = static_cast<Operation>(mine.operation);
  if (all_agree(context, low_latency, mine, arrived)) return;
  Violations violations(fmt::format("{} (rank {}): the ranks' calls differ",
                                    operation_name(operation), context.rank.value()));
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (!arrived[peer.index()]) continue;
    const LowLatencyHeader& theirs = header_of(context, low_latency, Epoch(mine.epoch), peer);
    violations.require(theirs.epoch == mine.epoch, "rank {} is at operation {}, expected {}",
                       peer.value(), theirs.epoch, mine.epoch);
    violations.require(theirs.operation == mine.operation, "rank {} calls {}", peer.value(),
                       operation_name(static_cast<Operation>(theirs.operation)));
    violations.require(theirs.format == mine.format,
                       "the fp8 format or the numerics are number {} on rank {} but {} here",
                       theirs.format, peer.value(), mine.format);
    violations.require(theirs.num_experts == mine.num_experts,
                       "num_experts is {} on rank {} but {} here", theirs.num_experts, peer.value(),
                       mine.num_experts);
    violations.require(theirs.has_weights == mine.has_weights,
                       "topk_weights are {}given on rank {}", theirs.has_weights != 0 ? "" : "not ",
                       peer.value());
  }
  acknowledge(context, low_latency, Epoch(mine.epoch), arrived);
  violations.throw_if_any();
}

}  // namespace moelink
