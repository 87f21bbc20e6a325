// Sizes, checks and results of a dispatch.
#include "backend/dispatch_call.hpp"

#include <utility>

#include "base/check.hpp"
#include "moelink/routing.hpp"
#include "protocol/offer.hpp"
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

DispatchCall DispatchCall::make(std::uint64_t owner, Rank rank, int num_ranks,
                                const DispatchConfig& config) {
  DispatchCall call;
  call.rank = rank;
  call.state = std::make_shared<RoutingState>();
  RoutingState& state = *call.state;
  state.owner = owner;
  state.num_ranks = num_ranks;
  state.num_experts = config.num_experts;
  state.layout = config.layout;
  state.padding = config.padding;
  state.expert_alignment = config.expert_alignment;
  state.num_tokens = config.x.shape[0];
  state.max_rows = config.num_worst_tokens;
  call.inputs.x = config.x;
  call.inputs.scales = config.scales;
  call.inputs.topk_weights = config.topk_weights;
  call.inputs.mask = config.is_token_in_rank;
  call.inputs.recv_stats = config.recv_stats;
  call.inputs.stream = config.stream;
  if (config.topk_idx.ndim > 0) {
    call.inputs.topk_idx = config.topk_idx;
    state.num_topk = static_cast<int>(config.topk_idx.shape[1]);
  }
  call.shape = shape_of(call.inputs, state, RowOrigin::kSent);
  return call;
}

DispatchCall DispatchCall::make(Rank rank, const CachedDispatchConfig& config) {
  DispatchCall call;
  call.operation = Operation::kCachedDispatch;
  call.rank = rank;
  call.inputs.x = config.x;
  call.inputs.scales = config.scales;
  call.inputs.topk_weights = config.topk_weights;
  call.inputs.stream = config.stream;
  // A cached dispatch only reads the state that it shares with the first one.
  call.state = std::shared_ptr<RoutingState>(config.handle, &config.handle->state());
  call.shape = shape_of(call.inputs, *call.state, RowOrigin::kReused);
  return call;
}

ReceiveLayout DispatchCall::layout_of(Rank receiver) const {
  const std::int64_t max_rows =
      state->max_rows_of_rank.empty() ? state->max_rows : state->max_rows_of_rank[receiver.index()];
  if (max_rows > 0) return ReceiveLayout::make(shape, max_rows, max_rows);
  const CountMatrix counts = state->count_matrix();
  const std::int64_t rows = num_receive_rows(counts, state->expert_map(), receiver, state->layout,
                                             state->expert_alignment);
  return ReceiveLayout::make(shape, rows, counts.num_tokens(receiver));
}

CallDigest DispatchCall::digest() const {
  CallDigest digest;
  digest.set(DigestField::kOperation, static_cast<std::int64_t>(operation));
  digest.set(DigestField::kDType, static_cast<std::int64_t>(inputs.x.dtype));
  digest.set(DigestField::kHiddenBytes, static_cast<std::int64_t>(shape.row_bytes));
  digest.set(DigestField::kScaleDType, dtype_code(inputs.scales));
  digest.set(DigestField::kScaleBytes, static_cast<std::int64_t>(shape.scale_bytes));
  digest.set(DigestField::kNumTopk, state->num_topk);
  digest.set(DigestField::kTopkDType, dtype_code(inputs.topk_idx));
  digest.set(DigestField::kTopkWeights, inputs.topk_weights ? 1 : 0);
  digest.set(DigestField::kNumExperts, state->num_experts);
  digest.set(DigestField::kLayout, static_cast<std::int64_t>(state->layout));
  digest.set(DigestField::kExpertAlignment, state->expert_alignment);
  digest.set(DigestField::kWorstTokens, has_known_size() ? 1 : 0);
  digest.set(DigestField::kHandle,
             is_cached() ? static_cast<std::int64_t>(state->epoch.value()) : 0);
  return digest;
}

ExchangeBlock DispatchCall::describe(const WireSpan& expected, const WireSpan& largest) const {
  ExchangeBlock block{};
  block.digest = digest();
  block.num_tokens = static_cast<std::uint64_t>(state->num_tokens);
  block.max_rows = has_known_size() ? static_cast<std::uint64_t>(state->max_rows) : kUnlimitedRows;
  block.spans[0] = expected;
  block.spans[1] = largest;
  return block;
}

void DispatchCall::keep_counts(std::vector<std::int32_t> counts,
                               std::span<const ExchangeBlock> blocks) const {
  state->counts = std::move(counts);
  for (const ExchangeBlock& block : blocks) {
    state->tokens_of_rank.push_back(static_cast<std::int64_t>(block.num_tokens));
    state->max_rows_of_rank.push_back(block.row_limit());
  }
}

void DispatchCall::check_worst_rows() const {
  Violations violations(fmt::format("{} (rank {})", operation_name(operation), rank.value()));
  for (Rank receiver(0); receiver.value() < state->num_ranks; receiver = receiver.next()) {
    const std::int64_t max_rows = state->max_rows_of_rank[receiver.index()];
    if (max_rows == 0) continue;
    const std::int64_t needed = num_receive_rows(state->count_matrix(), state->expert_map(),
                                                 receiver, state->layout, state->expert_alignment);
    violations.require(needed <= max_rows,
                       "num_worst_tokens={} of rank {} is too small, {} rows are needed", max_rows,
                       receiver.value(), needed);
  }
  violations.throw_if_any();
}

WireSpan DispatchCall::place_of(const ExchangeBlock& block, Rank receiver) const {
  const std::size_t needed = layout_of(receiver).total_bytes();
  const WireSpan place = choose_place(block.spans[0], block.spans[1], needed);
  if (place.bytes >= needed) return place;
  fail(ErrorCode::kInvalidArgument,
       "{} (rank {}): rank {} needs {} bytes of symmetric memory for its {} tokens, its largest "
       "free place has {}: raise max_symmetric_bytes or release receive tensors",
       operation_name(operation), rank.value(), receiver.value(), needed,
       state->count_matrix().num_tokens(receiver), block.spans[1].bytes);
}

Tensor DispatchCall::part_tensor(const ReceiveBlock& block, ReceivePart part, DType dtype,
                                 std::int64_t rows, std::int64_t columns) const {
  const auto index = static_cast<std::size_t>(part);
  return Tensor{TensorView::contiguous(block.parts[index], dtype, {rows, columns}),
                block.owners[index]};
}

DispatchResult DispatchCall::result(const ReceiveBlock& block) const {
  const std::int64_t rows = has_known_size() ? state->max_rows : state->num_recv_rows;
  const bool compact = state->layout == Layout::kCompact;
  DispatchResult result;
  result.recv_x =
      part_tensor(block, ReceivePart::kPayload, inputs.x.dtype, rows, inputs.x.shape[1]);
  if (inputs.scales) {
    result.recv_scales = part_tensor(block, ReceivePart::kScales, inputs.scales->dtype, rows,
                                     inputs.scales->shape[1]);
  }
  if (inputs.topk_idx && compact) {
    result.recv_topk_idx =
        part_tensor(block, ReceivePart::kTopkIdx, inputs.topk_idx->dtype, rows, state->num_topk);
  }
  if (inputs.topk_weights) {
    Tensor weights = part_tensor(block, ReceivePart::kTopkWeights, DType::kFloat32, rows,
                                 compact ? state->num_topk : 1);
    if (!compact) {
      weights.view = TensorView::contiguous(weights.view.data, DType::kFloat32, {rows});
    }
    result.recv_topk_weights = std::move(weights);
  }
  return result;
}

void DispatchCall::keep_origins(const ReceiveBlock& block) const {
  state->recv_src_token =
      part_tensor(block, ReceivePart::kSourceToken, DType::kInt32, state->num_recv_tokens, 1);
  TensorView& view = state->recv_src_token.view;
  view = TensorView::contiguous(view.data, view.dtype, {state->num_recv_tokens});
  if (state->layout == Layout::kExpertMajor) {
    state->recv_expert_row = part_tensor(block, ReceivePart::kExpertRow, DType::kInt32,
                                         state->num_recv_tokens, state->num_topk);
  }
}

}  // namespace moelink
