// Plan of a dispatch: what is exchanged, and where every destination takes its rows.
#include "backend/cpu/dispatch.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/trace_scope.hpp"
#include "moelink/routing.hpp"
#include "protocol/placement.hpp"

namespace moelink {
namespace {

std::int64_t dtype_code(const std::optional<TensorView>& tensor) {
  return tensor ? static_cast<std::int64_t>(tensor->dtype) : -1;
}

std::size_t row_bytes(const TensorView& tensor) {
  return static_cast<std::size_t>(tensor.shape[1]) * dtype_size(tensor.dtype);
}

ReceiveShape shape_of(const DispatchInputs& inputs, const RoutingState& state, RowOrigin origin) {
  ReceiveShape shape;
  shape.layout = state.layout;
  shape.row_bytes = row_bytes(inputs.x);
  shape.scale_bytes = inputs.scales ? row_bytes(*inputs.scales) : 0;
  shape.index_bytes = inputs.topk_idx ? dtype_size(inputs.topk_idx->dtype) : 0;
  shape.num_topk = static_cast<std::size_t>(state.num_topk);
  shape.weight_bytes = inputs.topk_weights ? sizeof(float) : 0;
  shape.origin = origin;
  return shape;
}

}  // namespace

std::shared_ptr<DispatchOperation> DispatchOperation::make(CpuContext& context,
                                                           const DispatchConfig& config) {
  auto state = std::make_shared<RoutingState>();
  state->owner = context.id;
  state->num_ranks = context.num_ranks();
  state->num_experts = config.num_experts;
  state->layout = config.layout;
  state->padding = config.padding;
  state->expert_alignment = config.expert_alignment;
  state->num_tokens = config.x.shape[0];
  state->max_rows = config.num_worst_tokens;
  DispatchInputs inputs;
  inputs.x = config.x;
  inputs.scales = config.scales;
  inputs.topk_weights = config.topk_weights;
  inputs.mask = config.is_token_in_rank;
  inputs.recv_stats = config.recv_stats;
  inputs.stream = config.stream;
  if (config.topk_idx.ndim > 0) {
    inputs.topk_idx = config.topk_idx;
    inputs.topk = TopkList(config.topk_idx);
    state->num_topk = inputs.topk.num_topk();
  }
  return std::make_shared<DispatchOperation>(context, Operation::kDispatch, std::move(inputs),
                                             std::move(state));
}

std::shared_ptr<DispatchOperation> DispatchOperation::make(CpuContext& context,
                                                           const CachedDispatchConfig& config) {
  DispatchInputs inputs;
  inputs.x = config.x;
  inputs.scales = config.scales;
  inputs.topk_weights = config.topk_weights;
  inputs.stream = config.stream;
  // A cached dispatch only reads the state that it shares with the first one.
  std::shared_ptr<RoutingState> state(config.handle, &config.handle->state());
  return std::make_shared<DispatchOperation>(context, Operation::kCachedDispatch, std::move(inputs),
                                             std::move(state));
}

DispatchOperation::DispatchOperation(CpuContext& context, Operation operation,
                                     DispatchInputs inputs, std::shared_ptr<RoutingState> state)
    : context_(context),
      operation_(operation),
      inputs_(std::move(inputs)),
      state_(std::move(state)),
      shape_(shape_of(inputs_, *state_, cached() ? RowOrigin::kReused : RowOrigin::kSent)) {}

ReceiveLayout DispatchOperation::layout_of(Rank rank) const {
  const std::int64_t max_rows = state_->max_rows_of_rank[rank.index()];
  if (max_rows > 0) return ReceiveLayout::make(shape_, max_rows, max_rows);
  const CountMatrix counts = state_->count_matrix();
  const std::int64_t rows = num_receive_rows(counts, state_->expert_map(), rank, state_->layout,
                                             state_->expert_alignment);
  return ReceiveLayout::make(shape_, rows, counts.num_tokens(rank));
}

CallDigest DispatchOperation::digest() const {
  CallDigest digest;
  digest.set(DigestField::kOperation, static_cast<std::int64_t>(operation_));
  digest.set(DigestField::kDType, static_cast<std::int64_t>(inputs_.x.dtype));
  digest.set(DigestField::kHiddenBytes, static_cast<std::int64_t>(shape_.row_bytes));
  digest.set(DigestField::kScaleDType, dtype_code(inputs_.scales));
  digest.set(DigestField::kScaleBytes, static_cast<std::int64_t>(shape_.scale_bytes));
  digest.set(DigestField::kNumTopk, state_->num_topk);
  digest.set(DigestField::kTopkDType, dtype_code(inputs_.topk_idx));
  digest.set(DigestField::kTopkWeights, inputs_.topk_weights ? 1 : 0);
  digest.set(DigestField::kNumExperts, state_->num_experts);
  digest.set(DigestField::kLayout, static_cast<std::int64_t>(state_->layout));
  digest.set(DigestField::kExpertAlignment, state_->expert_alignment);
  digest.set(DigestField::kWorstTokens, has_known_size() ? 1 : 0);
  digest.set(DigestField::kHandle, cached() ? static_cast<std::int64_t>(state_->epoch.value()) : 0);
  return digest;
}

void DispatchOperation::reserve() {
  const std::int64_t rows = state_->max_rows;
  const ReceiveLayout layout = ReceiveLayout::make(shape_, rows, rows);
  const Arena::Offer offer = context_.arena->make_offer(layout.total_bytes());
  reserved_ = Arena::choose(offer, layout.total_bytes());
  if (reserved_.bytes < layout.total_bytes()) {
    context_.arena->abandon();
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): num_worst_tokens={} needs {} bytes of symmetric memory, the largest free "
         "place has {}: raise max_symmetric_bytes or release receive tensors",
         operation_name(operation_), context_.rank.value(), rows, layout.total_bytes(),
         offer.largest.bytes);
  }
  parts_ = context_.arena->settle(reserved_, layout.part_bytes);
}

ExchangeBlock DispatchOperation::describe_call() {
  ExchangeBlock block{};
  block.digest = digest();
  block.num_tokens = static_cast<std::uint64_t>(state_->num_tokens);
  block.max_rows = has_known_size() ? static_cast<std::uint64_t>(state_->max_rows) : kUnlimitedRows;
  if (has_known_size()) {
    block.spans[0] = WireSpan{reserved_.offset, reserved_.bytes};
    block.spans[1] = block.spans[0];
    return block;
  }
  const Arena::Offer offer = context_.arena->make_offer(context_.expected_bytes);
  block.spans[0] = WireSpan{offer.expected.offset, offer.expected.bytes};
  block.spans[1] = WireSpan{offer.largest.offset, offer.largest.bytes};
  return block;
}

void DispatchOperation::begin() {
  inputs_.stream.previous_event.wait();
  std::vector<std::int32_t> count_row;
  if (!cached()) {
    const TraceScope scope(operation_, Stage::kRoute, context_.rank);
    const auto* mask = inputs_.mask ? inputs_.mask->as<std::uint8_t>() : nullptr;
    count_row = route_tokens(inputs_.topk, mask, context_.rank, *state_);
  }
  try {
    Exchange exchange = exchange_calls(context_, operation_, describe_call(), count_row);
    epoch_ = context_.epoch;
    const TraceScope scope(operation_, Stage::kPlace, context_.rank);
    if (!cached()) {
      state_->epoch = epoch_;
      state_->counts = std::move(exchange.counts);
      for (const ExchangeBlock& block : exchange.blocks) {
        state_->tokens_of_rank.push_back(static_cast<std::int64_t>(block.num_tokens));
        const bool exact = block.max_rows == kUnlimitedRows;
        state_->max_rows_of_rank.push_back(exact ? 0 : static_cast<std::int64_t>(block.max_rows));
      }
      leave_out_ranks(exchange.present, *state_);
      check_worst_rows();
      plan_receive(context_.rank, *state_);
      place_tokens(inputs_.topk, context_.rank, *state_);
    }
    choose_targets(exchange);
  } catch (...) {
    if (!has_known_size()) context_.arena->abandon();
    throw;
  }
}

void DispatchOperation::check_worst_rows() const {
  Violations violations(
      fmt::format("{} (rank {})", operation_name(operation_), context_.rank.value()));
  for (Rank rank(0); rank.value() < context_.num_ranks(); rank = rank.next()) {
    const std::int64_t max_rows = state_->max_rows_of_rank[rank.index()];
    if (max_rows == 0) continue;
    const std::int64_t needed = num_receive_rows(state_->count_matrix(), state_->expert_map(), rank,
                                                 state_->layout, state_->expert_alignment);
    violations.require(needed <= max_rows,
                       "num_worst_tokens={} of rank {} is too small, {} rows are needed", max_rows,
                       rank.value(), needed);
  }
  violations.throw_if_any();
}

ArenaSpan DispatchOperation::offered_span(const ExchangeBlock& block, Rank rank,
                                          std::size_t needed) const {
  const Arena::Offer offer{{block.spans[0].offset, block.spans[0].bytes},
                           {block.spans[1].offset, block.spans[1].bytes}};
  if (needed == 0) return ArenaSpan{offer.expected.offset, 0};
  const ArenaSpan chosen = Arena::choose(offer, needed);
  if (chosen.bytes >= needed) return chosen;
  fail(ErrorCode::kInvalidArgument,
       "{} (rank {}): rank {} needs {} bytes of symmetric memory for its {} tokens, its largest "
       "free place has {}: raise max_symmetric_bytes or release receive tensors",
       operation_name(operation_), context_.rank.value(), rank.value(), needed,
       state_->count_matrix().num_tokens(rank), offer.largest.bytes);
}

void DispatchOperation::choose_targets(const Exchange& exchange) {
  const SymmetricMemory& memory = context_.control->memory();
  targets_.resize(exchange.blocks.size());
  ArenaSpan own;
  ReceiveLayout own_layout;
  for (Rank rank(0); rank.value() < context_.num_ranks(); rank = rank.next()) {
    if (!exchange.present[rank.index()]) continue;
    targets_[rank.index()].present = true;
    const ReceiveLayout layout = layout_of(rank);
    const ArenaSpan span = offered_span(exchange.of(rank), rank, layout.total_bytes());
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

Tensor DispatchOperation::part_tensor(ReceivePart part, DType dtype, std::int64_t rows,
                                      std::int64_t columns) const {
  const auto index = static_cast<std::size_t>(part);
  std::byte* base = context_.control->memory().local() + reserved_.offset;
  if (!targets_.empty()) {
    base = targets_[context_.rank.index()].part(part);
  } else {
    base += ReceiveLayout::make(shape_, state_->max_rows, state_->max_rows).offset(part);
  }
  return Tensor{TensorView::contiguous(base, dtype, {rows, columns}), parts_[index]};
}

DispatchResult DispatchOperation::result() const {
  const std::int64_t rows = has_known_size() ? state_->max_rows : state_->num_recv_rows;
  const bool compact = state_->layout == Layout::kCompact;
  DispatchResult result;
  result.recv_x = part_tensor(ReceivePart::kPayload, inputs_.x.dtype, rows, inputs_.x.shape[1]);
  if (inputs_.scales) {
    result.recv_scales =
        part_tensor(ReceivePart::kScales, inputs_.scales->dtype, rows, inputs_.scales->shape[1]);
  }
  if (inputs_.topk_idx && compact) {
    result.recv_topk_idx =
        part_tensor(ReceivePart::kTopkIdx, inputs_.topk_idx->dtype, rows, state_->num_topk);
  }
  if (inputs_.topk_weights) {
    Tensor weights = part_tensor(ReceivePart::kTopkWeights, DType::kFloat32, rows,
                                 compact ? state_->num_topk : 1);
    if (!compact) {
      weights.view = TensorView::contiguous(weights.view.data, DType::kFloat32, {rows});
    }
    result.recv_topk_weights = std::move(weights);
  }
  if (!has_known_size() && state_->num_topk > 0) {
    const auto* counts = state_->recv_tokens_per_expert.view.as<std::int32_t>();
    for (std::int64_t i = 0; i < state_->recv_tokens_per_expert.view.shape[0]; ++i) {
      result.num_recv_tokens_per_expert.push_back(
          align_up(std::int64_t{counts[i]}, state_->expert_alignment));
    }
  }
  return result;
}

}  // namespace moelink
