// Plan of a dispatch: what is exchanged, and where every destination takes its rows.
#include "backend/cpu/dispatch.hpp"

#include <algorithm>

#include "backend/cpu/network/relay_dispatch.hpp"
#include "base/check.hpp"
#include "base/trace_scope.hpp"

namespace moelink {
std::shared_ptr<DispatchOperation> DispatchOperation::make(CpuContext& context,
                                                           const DispatchConfig& config) {
  return std::make_shared<DispatchOperation>(
      context, DispatchCall::make(context.id, context.rank, context.num_ranks(), config));
}

std::shared_ptr<DispatchOperation> DispatchOperation::make(CpuContext& context,
                                                           const CachedDispatchConfig& config) {
  return std::make_shared<DispatchOperation>(context, DispatchCall::make(context.rank, config));
}

DispatchOperation::DispatchOperation(CpuContext& context, DispatchCall call)
    : context_(context), call_(std::move(call)) {
  if (call_.inputs.topk_idx) topk_ = TopkList(*call_.inputs.topk_idx);
  if (context.network) plan_token_message(context, call_);  // refuses rows before anything is sent
}

void DispatchOperation::reserve() {
  const std::int64_t rows = call_.state->max_rows;
  const ReceiveLayout layout = ReceiveLayout::make(call_.shape, rows, rows);
  const Arena::Offer offer = context_.arena->make_offer(layout.total_bytes());
  reserved_ = Arena::choose(offer, layout.total_bytes());
  if (reserved_.bytes < layout.total_bytes()) {
    context_.arena->abandon();
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): num_worst_tokens={} needs {} bytes of symmetric memory, the largest free "
         "place has {}: raise max_symmetric_bytes or release receive tensors",
         operation_name(call_.operation), context_.rank.value(), rows, layout.total_bytes(),
         offer.largest.bytes);
  }
  parts_ = context_.arena->settle(reserved_, layout.part_bytes);
}

ExchangeBlock DispatchOperation::describe_call() {
  if (has_known_size()) {
    const WireSpan reserved{reserved_.offset, reserved_.bytes};
    return call_.describe(reserved, reserved);
  }
  const Arena::Offer offer = context_.arena->make_offer(context_.expected_bytes);
  return call_.describe({offer.expected.offset, offer.expected.bytes},
                        {offer.largest.offset, offer.largest.bytes});
}

void DispatchOperation::begin() {
  call_.inputs.stream.previous_event.wait();
  std::vector<std::int32_t> count_row;
  if (!call_.is_cached()) {
    const TraceScope scope(call_.operation, Stage::kRoute, context_.rank);
    const auto* mask = call_.inputs.mask ? call_.inputs.mask->as<std::uint8_t>() : nullptr;
    count_row = route_tokens(topk_, mask, context_.rank, *call_.state);
  }
  try {
    Exchange exchange = exchange_calls(context_, call_.operation, describe_call(), count_row);
    epoch_ = context_.epoch;
    const TraceScope scope(call_.operation, Stage::kPlace, context_.rank);
    if (!call_.is_cached()) {
      call_.state->epoch = epoch_;
      call_.keep_counts(std::move(exchange.counts), exchange.blocks);
      leave_out_ranks(exchange.present, *call_.state);
      call_.check_worst_rows();
      plan_receive(context_.rank, *call_.state);
      place_tokens(topk_, context_.rank, *call_.state);
    }
    choose_targets(exchange);
  } catch (...) {
    if (!has_known_size()) context_.arena->abandon();
    throw;
  }
}

void DispatchOperation::choose_targets(const Exchange& exchange) {
  const SymmetricMemory& memory = context_.control->memory();
  targets_.resize(exchange.blocks.size());
  present_ = exchange.present;
  ArenaSpan own;
  ReceiveLayout own_layout;
  for (Rank rank(0); rank.value() < context_.num_ranks(); rank = rank.next()) {
    if (!exchange.present[rank.index()]) continue;
    const ReceiveLayout layout = call_.layout_of(rank);
    const WireSpan place = call_.place_of(exchange.of(rank), rank);
    if (!context_.control->is_near(rank)) continue;
    targets_[rank.index()].present = true;
    const ArenaSpan span{place.offset, place.bytes};
    if (rank == context_.rank) {
      own = span;
      own_layout = layout;
    }
    for (std::size_t part = 0; part < kNumReceiveParts; ++part) {
      const std::size_t offset = layout.offset(static_cast<ReceivePart>(part));
      targets_[rank.index()].parts[part] = memory.region(rank) + span.offset + offset;
    }
  }
  if (has_known_size()) return;
  const std::size_t needed = own_layout.total_bytes();
  // Sizes vary from call to call: remember the largest of late, with an eighth to spare.
  if (needed > exchange.of(context_.rank).spans[0].bytes) ++context_.num_window_misses;
  context_.expected_bytes = std::max(needed + needed / 8, context_.expected_bytes / 8 * 7);
  parts_ = context_.arena->settle(own, own_layout.part_bytes);
}

ReceiveBlock DispatchOperation::own_block() const {
  ReceiveBlock block;
  block.owners = parts_;
  if (!targets_.empty()) {
    std::ranges::copy(targets_[context_.rank.index()].parts, block.parts);
    return block;
  }
  const ReceiveLayout layout = call_.layout_of(context_.rank);
  std::byte* const base = context_.control->memory().local() + reserved_.offset;
  for (std::size_t part = 0; part < kNumReceiveParts; ++part) {
    block.parts[part] = base + layout.offset(static_cast<ReceivePart>(part));
  }
  return block;
}

DispatchResult DispatchOperation::result() const {
  DispatchResult result = call_.result(own_block());
  if (!has_known_size() && call_.state->num_topk > 0) {
    const auto* counts = call_.state->recv_tokens_per_expert.view.as<std::int32_t>();
    for (std::int64_t i = 0; i < call_.state->recv_tokens_per_expert.view.shape[0]; ++i) {
      result.num_recv_tokens_per_expert.push_back(
          align_up(std::int64_t{counts[i]}, call_.state->expert_alignment));
    }
  }
  return result;
}

}  // namespace moelink
