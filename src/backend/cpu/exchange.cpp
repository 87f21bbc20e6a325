// Publishes exchange blocks, collects those of the peers, and compares the calls.
#include "backend/cpu/exchange.hpp"

#include <algorithm>

#include "backend/call_agreement.hpp"
#include "backend/cpu/low_latency/low_latency_context.hpp"
#include "backend/cpu/mask_agreement.hpp"
#include "base/trace_scope.hpp"

namespace moelink {
namespace {

// Whether a rank opens an area for the low latency mode.
bool opens_area(const Exchange& exchange) {
  return std::ranges::any_of(exchange.blocks, [](const ExchangeBlock& block) {
    const auto operation = static_cast<Operation>(block.digest.get(DigestField::kOperation));
    return operation == Operation::kOpen;
  });
}

}  // namespace

Exchange exchange_calls(CpuContext& context, Operation operation, const ExchangeBlock& mine,
                        std::span<const std::int32_t> count_row) {
  const TraceScope scope(operation, Stage::kExchange, context.rank);
  const ControlArea& control = *context.control;
  context.epoch = context.epoch.next();
  const Epoch epoch = context.epoch;
  RankMasks& masks = context.signals->masks();
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (masks.is_masked(peer)) continue;
    if (!control.is_near(peer)) {
      context.remote->send_exchange(peer, epoch, mine, count_row);
      continue;
    }
    control.exchange(peer, epoch, context.rank) = mine;
    std::ranges::copy(count_row, control.count_row(peer, epoch, context.rank));
  }
  const SignalValue done = SignalValue::of(epoch, kDone);
  const WaitContext wait_context = context.wait_context(operation, Stage::kExchange);
  context.signals->put_all(SignalChannel::kExchanged, done);
  context.signals->wait_all(SignalChannel::kExchanged, done, wait_context);
  // Blocks of a rank that has given up since offer memory that it may have put to other uses.
  context.signals->check_faults(epoch, wait_context);
  if (context.survival == Survival::kMask) agree_on_masks(context, operation);
  context.retired.clear();

  Exchange exchange;
  const auto num_ranks = static_cast<std::size_t>(context.num_ranks());
  exchange.blocks.reserve(num_ranks);
  exchange.counts.reserve(num_ranks * count_row.size());
  for (Rank source(0); source.value() < context.num_ranks(); source = source.next()) {
    const bool present = !masks.is_masked(source);
    exchange.present.push_back(present);
    if (!present) {  // sends nothing, receives nothing
      exchange.blocks.emplace_back();
      exchange.counts.insert(exchange.counts.end(), count_row.size(), 0);
      continue;
    }
    exchange.blocks.push_back(control.exchange(context.rank, epoch, source));
    const std::int32_t* row = control.count_row(context.rank, epoch, source);
    exchange.counts.insert(exchange.counts.end(), row, row + count_row.size());
  }
  if (opens_area(exchange)) context.low_latency->give_up_area();  // even if the calls differ
  check_same_call(exchange.blocks, exchange.present, operation, context.rank);
  return exchange;
}

}  // namespace moelink
