// Movement of a dispatch: every row goes once from its token to its final places.
#include <algorithm>
#include <cstring>

#include "backend/cpu/dispatch.hpp"
#include "backend/cpu/network/relay_dispatch.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "base/trace_scope.hpp"
#include "protocol/placement.hpp"

namespace moelink {
namespace {

// Own rows written between two looks at the network.
constexpr std::size_t kRelaySliceBytes = std::size_t{1} << 20;

}  // namespace

TokenRows DispatchOperation::own_tokens() const {
  TokenRows tokens;
  tokens.payload = call_.inputs.x.as<std::byte>();
  tokens.scales = call_.inputs.scales;
  tokens.topk = topk_;
  if (call_.inputs.topk_weights) tokens.weights = call_.inputs.topk_weights->as<float>();
  tokens.placement = call_.state->placement();
  return tokens;
}

void DispatchOperation::send_tokens() {
  const TraceScope scope(call_.operation, Stage::kSend, context_.rank);
  const TokenRows tokens = own_tokens();
  const RowWriter writer(call_, targets_);
  if (context_.network) return send_with_relay(tokens, writer);
  write_tokens(writer, tokens, IndexRange{0, call_.state->num_tokens});
}

void DispatchOperation::write_tokens(const RowWriter& writer, const TokenRows& tokens,
                                     IndexRange range) {
  const int copies = std::max(1, std::min(call_.state->num_topk, call_.state->num_ranks));
  const simd::StorePolicy policy =
      simd::policy_for(static_cast<std::size_t>(call_.state->num_tokens) * call_.shape.row_bytes *
                       static_cast<std::size_t>(copies));
  context_.workers.run(range.end - range.begin, workers_for(context_, call_.inputs.stream),
                       [&](IndexRange part) {
                         const IndexRange mine{range.begin + part.begin, range.begin + part.end};
                         writer.write(tokens, mine, policy);
                       });
}

// The network is served first, and in between: its messages travel while rows are copied.
void DispatchOperation::send_with_relay(const TokenRows& tokens, const RowWriter& writer) {
  const std::int64_t num_tokens = call_.state->num_tokens;
  const std::int64_t slice = std::max<std::int64_t>(
      1, static_cast<std::int64_t>(kRelaySliceBytes /
                                   std::max<std::size_t>(1, call_.shape.row_bytes)));
  RelayDispatch relay(context_, call_, tokens, writer, present_, epoch_);
  std::int64_t next = 0;
  while (next < num_tokens || !relay.is_done()) {
    const bool moved = relay.step();
    if (next < num_tokens) {
      const std::int64_t end = std::min(next + slice, num_tokens);
      write_tokens(writer, tokens, IndexRange{next, end});
      next = end;
    } else if (!moved && !relay.is_done()) {
      relay.pause();
    }
  }
}

void DispatchOperation::finish() {
  send_tokens();
  const SignalValue done = SignalValue::of(epoch_, kDone);
  {
    const TraceScope scope(call_.operation, Stage::kSignal, context_.rank);
    context_.signals->put_all(SignalChannel::kDelivered, done);
  }
  const TraceScope scope(call_.operation, Stage::kReceive, context_.rank);
  fill_unused_rows();
  for (Rank source(0); source.value() < context_.num_ranks(); source = source.next()) {
    const bool delivered =
        context_.signals->wait(source, SignalChannel::kDelivered, done,
                               context_.wait_context(call_.operation, Stage::kReceive));
    if (delivered) continue;
    clear_rows_of(source);
    // A rank that is late but alive may still write here: the memory is not used again.
    context_.quarantine.insert(context_.quarantine.end(), parts_.begin(), parts_.end());
  }
  if (context_.network) context_.remote->flush();
  context_.completed = epoch_;
  add_statistics();
  if (!call_.is_cached()) call_.keep_origins(own_block());
}

void DispatchOperation::clear_rows(ReceivePart part, IndexRange rows, std::size_t row_bytes,
                                   std::byte value) const {
  std::byte* const base = targets_[context_.rank.index()].part(part);
  std::fill(base + static_cast<std::size_t>(rows.begin) * row_bytes,
            base + static_cast<std::size_t>(rows.end) * row_bytes, value);
}

void DispatchOperation::fill_unused_rows() const {
  const IndexRange tail{
      call_.state->layout == Layout::kCompact ? call_.state->num_recv_tokens : fill_group_gaps(),
      call_.state->num_recv_rows};
  const bool compact = call_.state->layout == Layout::kCompact;
  const std::size_t per_row = compact ? call_.shape.num_topk : 1;
  clear_rows(ReceivePart::kTopkWeights, tail, per_row * call_.shape.weight_bytes, std::byte{0});
  if (compact) {  // all bytes 0xff: -1
    clear_rows(ReceivePart::kTopkIdx, tail, per_row * call_.shape.index_bytes, std::byte{0xff});
  }
}

void DispatchOperation::clear_rows_of(Rank source) const {
  const CountMatrix counts = call_.state->count_matrix();
  const auto clear = [this](IndexRange rows) {
    const bool compact = call_.state->layout == Layout::kCompact;
    const std::size_t per_row = compact ? call_.shape.num_topk : 1;
    clear_rows(ReceivePart::kPayload, rows, call_.shape.row_bytes, std::byte{0});
    clear_rows(ReceivePart::kScales, rows, call_.shape.scale_bytes, std::byte{0});
    clear_rows(ReceivePart::kTopkWeights, rows, per_row * call_.shape.weight_bytes, std::byte{0});
    if (compact) {
      clear_rows(ReceivePart::kTopkIdx, rows, per_row * call_.shape.index_bytes, std::byte{0xff});
    }
  };
  const std::int64_t begin = compact_start(counts, source, context_.rank).value();
  const IndexRange tokens{begin, begin + counts.tokens(source, context_.rank)};
  if (!call_.is_cached()) {  // combine reads these: they must lead nowhere
    const std::size_t list_bytes = call_.shape.num_topk * sizeof(std::int32_t);
    const bool compact = call_.state->layout == Layout::kCompact;
    clear_rows(ReceivePart::kSourceToken, tokens, sizeof(std::int32_t), std::byte{0});
    clear_rows(ReceivePart::kExpertRow, tokens, compact ? 0 : list_bytes, std::byte{0xff});
  }
  if (call_.state->layout == Layout::kCompact) {
    clear(tokens);
    return;
  }
  const ExpertMap map = call_.state->expert_map();
  std::vector<std::int64_t> starts(static_cast<std::size_t>(map.experts_per_rank));
  expert_group_starts(counts, map, context_.rank, call_.state->expert_alignment, starts.data());
  for (LocalExpert local(0); local.value() < map.experts_per_rank; local = local.next()) {
    const Expert expert = map.global(context_.rank, local);
    const std::int64_t first = starts[local.index()] + counts.selections_before(source, expert);
    clear(IndexRange{first, first + counts.selections(source, expert)});
  }
}

std::int64_t DispatchOperation::fill_group_gaps() const {
  const auto* counts = call_.state->recv_tokens_per_expert.view.as<std::int32_t>();
  std::int64_t group = 0;
  for (std::int64_t i = 0; i < call_.state->recv_tokens_per_expert.view.shape[0]; ++i) {
    const std::int64_t end =
        group + align_up(std::int64_t{counts[i]}, call_.state->expert_alignment);
    const IndexRange gap{group + counts[i], end};
    if (call_.state->padding == Padding::kZero) {
      clear_rows(ReceivePart::kPayload, gap, call_.shape.row_bytes, std::byte{0});
      clear_rows(ReceivePart::kScales, gap, call_.shape.scale_bytes, std::byte{0});
    }
    clear_rows(ReceivePart::kTopkWeights, gap, call_.shape.weight_bytes, std::byte{0});
    group = end;
  }
  return group;
}

void DispatchOperation::add_statistics() const {
  if (!call_.inputs.recv_stats) return;
  const auto* counts = call_.state->recv_tokens_per_expert.view.as<std::int32_t>();
  auto* stats = call_.inputs.recv_stats->as<std::int32_t>();
  for (std::int64_t i = 0; i < call_.inputs.recv_stats->shape[0]; ++i) stats[i] += counts[i];
}

}  // namespace moelink
