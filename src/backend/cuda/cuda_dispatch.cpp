// Offers memory, launches, and sizes the tensors while rows are already moving.
#include "backend/cuda/cuda_dispatch.hpp"

#include <algorithm>

#include "backend/call_agreement.hpp"
#include "backend/cuda/await_report.hpp"
#include "backend/cuda/device_checks.hpp"
#include "base/check.hpp"
#include "kernels/dispatch/launch.hpp"
#include "protocol/placement.hpp"

namespace moelink {
namespace {

kernels::StridedSource strided(const std::optional<TensorView>& tensor) {
  kernels::StridedSource source;
  if (!tensor) return source;
  const auto size = static_cast<std::int64_t>(dtype_size(tensor->dtype));
  source.data = tensor->as<const std::byte>();
  source.row_stride_bytes = tensor->strides[0] * size;
  source.column_stride_bytes = tensor->strides[1] * size;
  source.num_columns = static_cast<std::int32_t>(tensor->shape[1]);
  source.element_bytes = static_cast<std::int32_t>(size);
  return source;
}

}  // namespace

CudaDispatch::CudaDispatch(CudaContext& context, DispatchCall call)
    : context_(context), call_(std::move(call)) {}

void CudaDispatch::check_tensors() const {
  Violations violations(
      fmt::format("{} (rank {})", operation_name(call_.operation), context_.rank.value()));
  const DispatchInputs& inputs = call_.inputs;
  require_on_device(violations, "x", inputs.x, context_.device, kRowGranuleBytes);
  require_on_device(violations, "scales", inputs.scales, context_.device,
                    inputs.scales ? dtype_size(inputs.scales->dtype) : 1);
  require_on_device(violations, "topk_idx", inputs.topk_idx, context_.device,
                    inputs.topk_idx ? dtype_size(inputs.topk_idx->dtype) : 1);
  require_on_device(violations, "topk_weights", inputs.topk_weights, context_.device, 4);
  require_on_device(violations, "is_token_in_rank", inputs.mask, context_.device, 1);
  require_on_device(violations, "recv_stats", inputs.recv_stats, context_.device, 4);
  violations.throw_if_any();
}

DispatchResult CudaDispatch::run() {
  check_tensors();
  RoutingState& state = *call_.state;
  const StreamOptions& options = call_.inputs.stream;
  context_.note_capture(options);
  cudaStream_t const stream = context_.order->begin(options);
  if (!knows_size() && context_.is_captured()) {
    fail(
        ErrorCode::kUnsupported,
        "{} (rank {}): a dispatch in a CUDA graph needs num_worst_tokens: the sizes of its tensors "
        "would depend on counts that the host cannot wait for",
        operation_name(call_.operation), context_.rank.value());
  }
  routing_ = call_.is_cached() ? state.cuda : make_cuda_routing(context_, state);
  ReceiveBlock block;
  if (knows_size()) block = reserve();
  context_.epoch = context_.epoch.next();
  kernels::DispatchParams launched = params(offer());
  if (!knows_size()) launched.report = report_target(context_);
  DispatchResult result;
  try {
    const device::LaunchLimits limits = context_.limits_for(options);
    kernels::launch_dispatch(launched, kernels::plan_dispatch(launched, limits), stream);
    result.event = context_.order->end(options, context_.faults, context_.epoch);
    if (!knows_size()) block = settle(await_report(context_, launched.report, stream));
  } catch (...) {
    context_.arena->abandon();
    throw;
  }
  const Event event = std::move(result.event);
  result = call_.result(block);
  result.event = event;
  if (call_.is_cached()) return result;
  state.epoch = context_.epoch;
  state.cuda = routing_;
  const auto part = [&](ReceivePart which) {
    return reinterpret_cast<const std::int32_t*>(block.parts[static_cast<std::size_t>(which)]);
  };
  routing_->received = {part(ReceivePart::kSourceToken), part(ReceivePart::kExpertRow)};
  routing_->received_owner = block.owners[static_cast<std::size_t>(ReceivePart::kExpertRow)];
  if (knows_size()) {
    settle_later(block);
  } else {
    call_.keep_origins(block);
    list_received(result);
  }
  return result;
}

void CudaDispatch::settle_later(const ReceiveBlock& block) const {
  // The state must not own itself through its own function.
  DispatchCall call = call_;
  RoutingState* const state = call.state.get();
  call.state = std::shared_ptr<RoutingState>(std::shared_ptr<void>(), state);
  // Nor may it need the buffer, which the handle can outlive.
  state->settle = [order = context_.order, faults = context_.faults, routing = routing_, block,
                   call, state] {
    order->synchronize();
    faults->throw_if_raised(state->epoch);
    settle_routing(*routing, *state, call.rank);
    call.keep_origins(block);
  };
}

kernels::DispatchParams CudaDispatch::params(const ExchangeBlock& mine) const {
  const RoutingState& state = *call_.state;
  const DispatchInputs& inputs = call_.inputs;
  kernels::DispatchParams made;
  made.domain = context_.domain;
  made.operation = call_.operation;
  made.mine = mine;
  made.num_tokens = state.num_tokens;
  made.num_experts = state.num_experts;
  made.padding = state.padding;
  made.expert_alignment = state.expert_alignment;
  made.shape = call_.shape;
  made.x = inputs.x.as<const std::byte>();
  made.scales = strided(inputs.scales);
  made.topk.num_topk = state.num_topk;
  if (inputs.topk_idx) {
    made.topk.ids = inputs.topk_idx->data;
    made.topk.id_bytes = static_cast<std::int32_t>(dtype_size(inputs.topk_idx->dtype));
  }
  if (inputs.topk_weights) made.topk.weights = inputs.topk_weights->as<const float>();
  if (inputs.mask) made.mask = inputs.mask->as<const std::uint8_t>();
  if (inputs.recv_stats) made.recv_stats = inputs.recv_stats->as<std::int32_t>();
  made.routing = routing_->memory;
  if (call_.is_cached()) made.recv_expert_row = routing_->received.expert_row;
  return made;
}

ExchangeBlock CudaDispatch::offer() {
  if (knows_size()) return call_.describe(reserved_, reserved_);
  const Arena::Offer offer = context_.arena->make_offer(context_.expected_bytes);
  return call_.describe({offer.expected.offset, offer.expected.bytes},
                        {offer.largest.offset, offer.largest.bytes});
}

ReceiveBlock CudaDispatch::reserve() {
  const ReceiveLayout layout = call_.layout_of(context_.rank);
  const std::size_t needed = layout.total_bytes();
  if (context_.is_captured()) {
    const std::shared_ptr<void> owner = context_.allocate(needed);
    reserved_ = WireSpan{context_.arena->offset_of(owner.get()), needed};
    ReceiveBlock block = parts_at(reserved_, layout);
    block.owners.assign(kNumReceiveParts, owner);
    return block;
  }
  const Arena::Offer offer = context_.arena->make_offer(needed);
  const ArenaSpan chosen = Arena::choose(offer, needed);
  if (chosen.bytes < needed) {
    context_.arena->abandon();
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): num_worst_tokens={} needs {} bytes of symmetric memory, the largest free "
         "place has {}: raise max_symmetric_bytes or release receive tensors",
         operation_name(call_.operation), context_.rank.value(), call_.state->max_rows, needed,
         offer.largest.bytes);
  }
  reserved_ = WireSpan{chosen.offset, chosen.bytes};
  return block_at(reserved_, layout);
}

ReceiveBlock CudaDispatch::parts_at(const WireSpan& place, const ReceiveLayout& layout) const {
  ReceiveBlock block;
  std::byte* const base = context_.memory->local() + place.offset;
  for (std::size_t part = 0; part < kNumReceiveParts; ++part) {
    block.parts[part] = base + layout.offset(static_cast<ReceivePart>(part));
  }
  return block;
}

ReceiveBlock CudaDispatch::block_at(const WireSpan& place, const ReceiveLayout& layout) const {
  ReceiveBlock block = parts_at(place, layout);
  for (std::shared_ptr<void>& owner :
       context_.arena->settle(ArenaSpan{place.offset, place.bytes}, layout.part_bytes)) {
    block.owners.push_back(context_.in_stream_order(std::move(owner)));
  }
  return block;
}

ReceiveBlock CudaDispatch::settle(const kernels::Report& report) {
  RoutingState& state = *call_.state;
  const auto num_ranks = static_cast<std::size_t>(context_.num_ranks());
  const std::span<const ExchangeBlock> blocks(report.blocks(), num_ranks);
  check_same_call(blocks, std::vector<bool>(num_ranks, true), call_.operation, context_.rank);
  check_selections(blocks, state.num_topk, state.num_experts);
  const std::int32_t* const counts = report.counts(context_.num_ranks());
  const std::size_t length =
      num_ranks * CountMatrix::row_length(state.num_ranks, state.num_experts);
  call_.keep_counts(std::vector<std::int32_t>(counts, counts + length), blocks);
  call_.check_worst_rows();
  WireSpan own{};
  for (Rank rank(0); rank.value() < context_.num_ranks(); rank = rank.next()) {
    const WireSpan place = call_.place_of(blocks[rank.index()], rank);
    if (rank == context_.rank) own = place;
  }
  const CountMatrix matrix = state.count_matrix();
  state.num_recv_tokens = matrix.num_tokens(context_.rank);
  state.num_recv_rows = num_receive_rows(matrix, state.expert_map(), context_.rank, state.layout,
                                         state.expert_alignment);
  const ReceiveLayout layout = call_.layout_of(context_.rank);
  const std::size_t needed = layout.total_bytes();
  // Sizes vary from call to call: remember the largest of late, with an eighth to spare.
  if (needed > blocks[context_.rank.index()].spans[0].bytes) ++context_.num_window_misses;
  context_.expected_bytes = std::max(needed + needed / 8, context_.expected_bytes / 8 * 7);
  return block_at(own, layout);
}

void CudaDispatch::list_received(DispatchResult& result) const {
  const RoutingState& state = *call_.state;
  if (state.num_topk == 0) return;
  const CountMatrix matrix = state.count_matrix();
  const ExpertMap map = state.expert_map();
  for (LocalExpert local(0); local.value() < map.experts_per_rank; local = local.next()) {
    result.num_recv_tokens_per_expert.push_back(
        padded_group_rows(matrix, map.global(context_.rank, local), state.expert_alignment));
  }
}

}  // namespace moelink
